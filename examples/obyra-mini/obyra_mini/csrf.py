"""Forms are accepted only with the token that this session's page carried."""

import hmac
import secrets

from flask import Blueprint, request, session
from werkzeug.exceptions import BadRequest


def protect(blueprint: Blueprint) -> None:
    blueprint.before_request(refuse_foreign_forms)
    blueprint.app_context_processor(lambda: {"csrf_token": token})


def token() -> str:
    return session.setdefault("csrf_token", secrets.token_urlsafe(32))


def refuse_foreign_forms() -> None:
    if request.method != "POST":
        return
    known, sent = session.get("csrf_token", ""), request.form.get("csrf_token", "")
    if not known or not hmac.compare_digest(known.encode(), sent.encode()):
        raise BadRequest("El formulario venció. Volvé a la página y enviálo de nuevo.")
