"""One small site, the same in every framework: where the line goes, and how a handler records there.

Each module has an attribute ``app`` with the middleware around it. To try one against the collector
(``python -m convert_middleware.collector``), with a secret key of your own in ``CONVERT_SECRET_KEY``::

    CONVERT_ENDPOINT=http://127.0.0.1:8070/track/ uvicorn examples.frameworks.fastapi_site:app
    CONVERT_ENDPOINT=http://127.0.0.1:8070/track/ waitress-serve examples.frameworks.flask_site:app

======== =========== ======================================================================
``GET``  ``/``       presents experiment 11, variation 12; says which variation the visitor has
``POST`` ``/signup`` records goal 331; says ``first`` or ``again``
``POST`` ``/buy``    records an order
``GET``  ``/stream`` three chunks; records goal 34 after the first
``GET``  ``/file``   a static file; records goal 33
``GET``  ``/plain``  records nothing
======== =========== ======================================================================
"""

from typing import Final

ASGI: Final = (
    "starlette_site",
    "fastapi_site",
    "litestar_site",
    "quart_site",
    "django_asgi_site",
    "falcon_asgi_site",
    "blacksheep_site",
)
WSGI: Final = (
    "flask_site",
    "django_wsgi_site",
    "falcon_wsgi_site",
    "bottle_site",
    "pyramid_site",
)
