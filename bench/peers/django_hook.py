"""A webhook endpoint as a Django team writes it: a sync view that checks the HMAC and publishes to Redis.

It guarantees less than wsm: PUBLISH stores nothing, so who does not listen at that moment never hears of the
webhook. It has no middleware and no database, which a real project has, and so is cheaper than one.
`gunicorn bench.peers.django_hook:application`, with REDIS_URL set.
"""

import hashlib
import hmac
import json
import os
from functools import cache

import django
import redis
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from bench.webhooks import secret
from wsm.core.ids import SessionAddress, SessionName, TenantId

settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], INSTALLED_APPS=[], LOGGING_CONFIG=None
)
django.setup(set_prefix=False)

_redis = redis.Redis.from_url(os.environ["REDIS_URL"])


@cache
def _secret(tenant: int, session: str) -> bytes:
    return secret(SessionAddress(TenantId(tenant), SessionName(session))).encode()


@csrf_exempt  # type: ignore[untyped-decorator]
def webhook(request: HttpRequest, tenant: int, session: str) -> HttpResponse:
    """Take one webhook."""
    body = request.body
    expected = hmac.new(_secret(tenant, session), body, hashlib.sha512).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("X-Webhook-Hmac", "")):
        return JsonResponse({"error": "signature"}, status=403)
    event = json.loads(body)
    message = {"event": event["event"], "session": session, "payload": event["payload"]}
    _redis.publish(f"webhooks:{tenant}", json.dumps(message))
    response = JsonResponse({"status": "ok"})
    response["Content-Length"] = len(response.content)  # CommonMiddleware would; else gunicorn sends chunks
    return response


urlpatterns = [path("webhooks/waha/<int:tenant>/<slug:session>", webhook)]
application = WSGIHandler()
