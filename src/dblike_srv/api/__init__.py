"""The HTTP face: a blueprint per resource.  A view parses, calls one function, and renders."""
