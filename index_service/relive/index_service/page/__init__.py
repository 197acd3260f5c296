"""The page of an index service: what a person looks at in a browser.

`server` takes connections, `messages` reads requests, `requests` says who may ask, and `answers`
makes the JSON out of an engine. What the browser gets is in `files`, as it is written.
"""
