"""What went wrong, said so that the reader knows what to do next."""

import logging

from flask import Blueprint, render_template
from sqlalchemy.exc import DataError, DBAPIError
from werkzeug.exceptions import BadRequest, HTTPException

log = logging.getLogger(__name__)

NO_ORGANIZATIONS = {
    "title": "Todavía no hay organizaciones",
    "advice": "Las tablas están; faltan los datos iniciales.",
    "command": "flask db seed",
}
UNREACHABLE = {
    "title": "No se pudo conectar con la base de datos",
    "advice": "Revisá DATABASE_URL, la contraseña (pudo haber rotado) y que el servidor esté en marcha.",
    "command": "obyra-db status",
}
NOT_ALLOWED = {
    "title": "El rol de la aplicación no tiene permiso para eso",
    "advice": "Los privilegios no son los de la estrategia.",
    "command": "obyra-db plan dev",
}
BY_SQLSTATE = {
    "42P01": {
        "title": "La base todavía no tiene las tablas",
        "advice": "Falta ejecutar las migraciones, o el search_path del rol no apunta al esquema de la aplicación.",
        "command": "flask db upgrade",
    },
    "42501": NOT_ALLOWED,
    "25006": NOT_ALLOWED,
}
UNEXPECTED = {
    "title": "La base de datos no aceptó la operación",
    "advice": "No se guardó nada. El detalle está en el registro de la aplicación.",
    "command": "",
}
IN_GENERAL = {404: "Esa página no existe.", 405: "Esa página no acepta ese tipo de pedido."}


def register(blueprint: Blueprint) -> None:
    blueprint.app_errorhandler(DataError)(data_page)
    blueprint.app_errorhandler(DBAPIError)(database_page)
    blueprint.app_errorhandler(HTTPException)(http_page)


def explain(error: DBAPIError) -> dict[str, str]:
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        return UNREACHABLE
    return BY_SQLSTATE.get(sqlstate, UNEXPECTED)


def database_page(error: DBAPIError):
    log.error("database: %s", error.orig)
    return render_template("message.html", **explain(error)), 503


def data_page(error: DataError):
    log.warning("refused by the database: %s", error.orig)
    return http_page(BadRequest("Un valor del pedido no es aceptable."))


def http_page(error: HTTPException):
    ours = error.description != type(error).description
    title = error.description if ours else IN_GENERAL.get(error.code, "No se pudo atender el pedido.")
    return render_template("message.html", title=title, advice="", command=""), error.code
