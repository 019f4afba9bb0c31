"""A page where one watches a cache forget: `engine.mjs` is this package's lesson in JavaScript, held to its numbers.

`steps` writes what the page shows, from Python; `page` puts a model, a text and the scripts into one HTML file.
"""
