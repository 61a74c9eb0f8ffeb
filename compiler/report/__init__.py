"""``xllmc explain --html``: what a compile did, as one page that needs no network and no server."""
