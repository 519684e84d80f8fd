"""A proxy server for Cloudflare-style remote bindings: `python -m proxy_server serve CONFIG`.

It builds on capnweb_py, which never imports it. What can be embedded is in app.py; everything else serves
that.
"""
