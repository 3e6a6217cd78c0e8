"""The checks of notebook 07."""

__all__ = []
