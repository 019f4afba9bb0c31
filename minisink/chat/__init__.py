"""A conversation that never ends: templates, turns, and which of them are still in view."""
