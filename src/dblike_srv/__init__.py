"""DBLike's server: thin HTTP over two verbs, commit and fetch.

A *site* is one database and one pack store, with any number of processes on them.  `commit` takes a
changeset in and says what became of each version; `fetch` gives contents out as deltas.  `journal`
is the only writer of versions; everything else reads, serves or maintains what these two make.
"""
