"""The simple performance model, for every test here that asks for it."""

from .simple import simple_performance as simple_performance
