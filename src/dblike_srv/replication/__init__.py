"""Replication: a site follows another site's journals, as a device follows a site.

keys        who is a site of the cluster, and proving it
messages    what sites say to each other beside changesets
shared      rows that all sites share: what is new of them, and taking that in
journals    a folder's journals as a stream
arrival     versions that another site accepted, into this site's tree
runs        versions that were asked for, one run behind the other
parts       what came of contents before a cut
link        the steps over HTTP
follower    following one site: connect, catch up, listen
supervisor  the process that follows all of them, where no other one does
copies      how many sites hold a commit
lost        what no site holds any more
"""
