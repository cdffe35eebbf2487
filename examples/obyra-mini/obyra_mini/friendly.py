"""What went wrong, said so that the reader knows what to do next."""

import logging

from flask import Blueprint, render_template
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException

log = logging.getLogger(__name__)

NO_ORGANIZATIONS = {
    "title": "Todavía no hay organizaciones",
    "advice": "Las tablas están; faltan los datos iniciales.",
    "command": "flask db seed",
}
UNREACHABLE = {
    "title": "No se pudo conectar con la base de datos",
    "advice": "Revisá DATABASE_URL y que el servidor esté en marcha.",
    "command": "obyra-db status",
}
BY_SQLSTATE = {
    "42P01": {
        "title": "La base todavía no tiene las tablas",
        "advice": "Falta ejecutar las migraciones, o el search_path del rol no apunta al esquema de la aplicación.",
        "command": "flask db upgrade",
    },
    "42501": {
        "title": "El rol de la aplicación no tiene permiso para eso",
        "advice": "Los privilegios no son los de la estrategia.",
        "command": "obyra-db plan dev",
    },
    "28P01": {
        "title": "La base rechazó la contraseña",
        "advice": "La contraseña pudo haber rotado: volvé a cargar las credenciales.",
        "command": "obyra-db url dev --as obyra_app",
    },
}
UNEXPECTED = {
    "title": "La base de datos no aceptó la operación",
    "advice": "No se guardó nada. El detalle está en el registro de la aplicación.",
    "command": "",
}


def register(blueprint: Blueprint) -> None:
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


def http_page(error: HTTPException):
    return render_template("message.html", title=error.description, advice="", command=""), error.code
