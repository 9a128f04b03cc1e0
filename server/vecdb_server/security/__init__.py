"""Who may call the server, and how often.

tls.py          certificates           tokens.py       the file of hashed tokens
auth.py         which rpc needs which permission, and what a token covers
admission.py    bounds on calls and bytes, and rates
cursors.py      cursors of a tenant's listings, sealed
interceptor.py  applies all of these to every call
"""
