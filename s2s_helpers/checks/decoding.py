"""The checks of notebook 06."""

__all__ = []
