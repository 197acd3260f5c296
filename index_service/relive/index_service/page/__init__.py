"""The page of an index service: what a person looks at in a browser.

`server` takes connections, `requests` reads requests and says who may ask, `answers` makes the
JSON out of an engine. The files that the browser gets are in `files`, as they are written.
"""
