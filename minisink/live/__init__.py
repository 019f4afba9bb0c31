"""A page to watch a cache forget: `engine.mjs`, the lesson in JavaScript, tested to give this package's numbers."""
