"""The page: an organisation's projects and budgets, and the forms that add to them.

One request, one transaction: it names its organisation first, and row-level security does the rest.
"""

from decimal import Decimal, InvalidOperation

from flask import Blueprint, flash, jsonify, redirect, render_template, request, url_for
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import selectinload
from werkzeug.exceptions import BadRequest, NotFound

from . import csrf, friendly
from .models import AuditEntry, Budget, BudgetItem, Organization, Project, ProjectStatus, db

pages = Blueprint("pages", __name__)
csrf.protect(pages)
friendly.register(pages)

UNITS = ["m²", "m³", "m", "kg", "u", "h", "gl"]
RECENT_ENTRIES = 6


@pages.get("/")
def home():
    first = db.session.scalar(select(Organization).order_by(Organization.id).limit(1))
    if first is None:
        return render_template("message.html", **friendly.NO_ORGANIZATIONS), 503
    return redirect(url_for("pages.organization", slug=first.slug))


@pages.get("/o/<slug>")
def organization(slug: str):
    chosen = enter(slug)
    projects = db.session.scalars(
        select(Project).options(selectinload(Project.budgets).selectinload(Budget.items)).order_by(Project.code)
    ).all()
    return render_template(
        "organization.html",
        organization=chosen,
        organizations=db.session.scalars(select(Organization).order_by(Organization.id)).all(),
        projects=projects,
        totals=totals(projects),
        entries=db.session.scalars(
            select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(RECENT_ENTRIES)
        ).all(),
        role=db.session.scalar(text("SELECT current_user")),
        units=UNITS,
    )


@pages.post("/o/<slug>/projects")
def add_project(slug: str):
    chosen = enter(slug)
    project = Project(
        organization_id=chosen.id,
        code=field("code", "el código").upper(),
        name=field("name", "el nombre"),
        status=ProjectStatus.PLANNING,
    )
    project.budgets.append(Budget(organization_id=chosen.id, name="Presupuesto base", currency=currency()))
    db.session.add(project)
    record(chosen, "project.created", f"{project.code} · {project.name}")
    return commit(chosen, f"Proyecto {project.code} creado.", "Ya hay un proyecto con ese código.")


@pages.post("/o/<slug>/items")
def add_item(slug: str):
    chosen = enter(slug)
    budget = db.session.scalar(select(Budget).where(Budget.id == request.form.get("budget", type=int)))
    if budget is None:
        raise BadRequest("Ese presupuesto no existe en esta organización.")
    item = BudgetItem(
        organization_id=chosen.id,
        budget_id=budget.id,
        description=field("description", "la descripción"),
        unit=field("unit", "la unidad"),
        quantity=number("quantity", "La cantidad", least=Decimal("0.001")),
        unit_price=number("unit_price", "El precio unitario", least=Decimal(0)),
    )
    db.session.add(item)
    record(chosen, "budget_item.created", f"{budget.name} · {item.description}", amount=f"{item.amount:.2f}", currency=budget.currency)
    return commit(chosen, "Ítem agregado.", "Ese presupuesto ya tiene un ítem con esa descripción.")


@pages.get("/healthz")
def healthz():
    try:
        database, role = db.session.execute(text("SELECT current_database(), current_user")).one()
        revision = None
        if db.session.scalar(text("SELECT to_regclass('alembic_version')")):
            revision = ",".join(db.session.scalars(text("SELECT version_num FROM alembic_version ORDER BY 1"))) or None
    except DBAPIError as error:
        db.session.rollback()
        return jsonify(error=friendly.explain(error)["title"]), 503
    return jsonify(database=database, role=role, revision=revision)


def enter(slug: str) -> Organization:
    """The organisation of this request: until the transaction ends, only its rows exist."""
    found = db.session.scalar(select(Organization).where(Organization.slug == slug))
    if found is None:
        raise NotFound("Esa organización no existe.")
    db.session.execute(text("SELECT set_config('app.current_org_id', :id, true)"), {"id": str(found.id)})
    return found


def record(chosen: Organization, action: str, subject: str, **details: str) -> None:
    db.session.add(AuditEntry(organization_id=chosen.id, action=action, subject=subject, details=details))


def commit(chosen: Organization, done: str, taken: str):
    """Commits the write together with its entry in the log, or neither."""
    slug = chosen.slug
    try:
        db.session.commit()
        flash(done, "done")
    except IntegrityError as error:
        db.session.rollback()
        if error.orig.sqlstate != "23505":
            raise
        flash(taken, "refused")
    return redirect(url_for("pages.organization", slug=slug))


def field(name: str, called: str) -> str:
    value = " ".join(request.form.get(name, "").split())
    if not value:
        raise BadRequest(f"Falta {called}.")
    if len(value) > 200:
        raise BadRequest(f"Es demasiado largo {called}: hasta 200 caracteres.")
    return value


def number(name: str, called: str, least: Decimal) -> Decimal:
    """A number as the browser sends it (1234.5) or as people here write it (1.234,5)."""
    written = request.form.get(name, "").strip()
    if "," in written:
        written = written.replace(".", "").replace(",", ".")
    try:
        value = Decimal(written)
    except InvalidOperation:
        raise BadRequest(f"{called} no es un número.") from None
    if not value.is_finite() or not least <= value < Decimal(10) ** 9:
        raise BadRequest(f"{called} debe estar entre {least} y 999.999.999.")
    return value


def currency() -> str:
    chosen = request.form.get("currency")
    if chosen not in ("ARS", "USD"):
        raise BadRequest("La moneda debe ser ARS o USD.")
    return chosen


def totals(projects: list[Project]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for budget in (budget for project in projects for budget in project.budgets):
        sums[budget.currency] = sums.get(budget.currency, Decimal(0)) + budget.total
    return sums


@pages.app_template_filter("money")
def money(amount: Decimal, currency_code: str) -> str:
    symbol = {"ARS": "$", "USD": "US$"}[currency_code]
    return f"{symbol} {decimal(amount, 2)}"


@pages.app_template_filter("decimal")
def decimal(value: Decimal, places: int | None = None) -> str:
    """Written as in Argentina: 1.234.567,89."""
    plain = f"{value:,.{places}f}" if places is not None else f"{value.normalize():,f}"
    return plain.translate(str.maketrans(",.", ".,"))
