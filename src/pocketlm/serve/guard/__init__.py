"""Who may ask the server for what.

Every request passes, from the outside in:

    hosts   the Host and Origin it names, its method and content type
    doors   its key, what the key may do, how often and how much at once
    bodies  its size and depth, counted while it is read
    models  the models its key may use, the size of what is asked, how long an answer may take

The first three are middlewares and refuse before a route is reached. ``models`` and ``shelf`` stand
before the fleet and the store, so no route can forget them. ``exposure`` refuses to start a server
that would be open to others, ``keys`` keeps the keys.
"""
