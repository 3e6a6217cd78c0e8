"""The checks of notebook 08."""

__all__ = []
