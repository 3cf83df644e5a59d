"""DBLike's client: a folder of this machine stays the same as a folder of a site.

Reading order: `cycle` says what happens in which order; `report` has what comes out of it;
`scan` looks at the disk, `remote` at the site, `dblike_delta.reconcile` decides, `safety` stops,
`upload`, `download` and `apply` act, `state` remembers.  `fs` is the only module that touches the
user's files; `link` knows what a linked folder looks like from outside.
"""

from __future__ import annotations

__version__ = "0.1.0"
