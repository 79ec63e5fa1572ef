"""The HEALTHCHECK of the image: exit status 0 while the service in this container is alive.

It requests `/livez`, not `/readyz`, because a container that is still loading its model must not be restarted. It uses
`http.client`, because urllib would use a proxy that the environment names.
"""

import http.client
import os
import sys


def main() -> int:
    """Send one request; 0 if the service is alive."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("SER_PORT") or 8000), timeout=2)
    try:
        connection.request("GET", "/livez")
        return int(connection.getresponse().status != http.HTTPStatus.OK)
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
