"""The image's HEALTHCHECK: exit status 0 while the service in this container lives.

`/livez`, not `/readyz`: a container that loads its model must not be killed for it. `http.client` rather than urllib,
because the latter would go through a proxy that the environment names.
"""

import http.client
import os
import sys


def main() -> int:
    """Ask once."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("SER_PORT") or 8000), timeout=2)
    try:
        connection.request("GET", "/livez")
        return int(connection.getresponse().status != http.HTTPStatus.OK)
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
