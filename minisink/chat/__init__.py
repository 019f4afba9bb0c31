"""A conversation that never ends: templates, turns, and what of them is still in view."""
