"""The application: a table of contents."""

from __future__ import annotations

import threading

from flask import Flask

from dblike_srv.api import (
    events,
    files,
    folders,
    frame,
    history,
    ops,
    peer,
    problems,
    rsync,
    sessions,
    sync,
)
from dblike_srv.auth.plugins import load_gate
from dblike_srv.directory import SiteDirectory
from dblike_srv.hub import Hub, HubSettings
from dblike_srv.metrics import Metrics, metrics_directory
from dblike_srv.registers import INTERNAL
from dblike_srv.site import Site


def create_app(site: Site) -> Flask:
    """The WSGI application that serves `site`."""
    app = Flask("dblike_srv", static_folder=None)
    app.config["SOCK_SERVER_OPTIONS"] = events.OPTIONS
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    app.url_map.converters["raw"] = files.RawPath
    frame.register(app)
    problems.register(app)
    for part in (ops, sessions, folders, history, sync, rsync, files, events, peer):
        app.register_blueprint(part.blueprint)
    serve(app, site)
    return app


def serve(app: Flask, site: Site) -> None:
    """Serve this site from here on."""
    hub = Hub(
        SiteDirectory(site),
        site.clock,
        HubSettings(per_user=site.config.limits.sockets_per_user),
    )

    def pass_on(folder: bytes, cursor: str) -> None:
        if folder not in INTERNAL:
            hub.notify(folder, cursor)

    site.notices.subscribe(pass_on)
    metrics = Metrics(
        metrics_directory(site.config),
        {"dblike_sockets": lambda: len(hub), "dblike_threads": threading.active_count},
    )
    site.meter = metrics
    app.extensions |= {
        "dblike": site,
        "dblike-gate": load_gate(site, site.config.auth),
        "dblike-hub": hub,
        "dblike-metrics": metrics,
    }
