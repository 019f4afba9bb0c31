"""A page to watch a cache forget: `engine.mjs` is this package's lesson in JavaScript, tested to give its numbers.

`steps` writes what the page shows, from Python; `page` puts a model, a text and the scripts into one HTML file.
"""
