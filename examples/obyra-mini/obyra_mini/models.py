"""The tables, as the application sees them. The migrations are what makes them.

No model names a schema: the role's search_path decides (`public` in development, `app` in production).
"""

import enum
from datetime import date, datetime
from decimal import Decimal

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Numeric,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, relationship


class Base(DeclarativeBase):
    registry = registry(
        type_annotation_map={str: Text, datetime: DateTime(timezone=True), Decimal: Numeric(14, 2)}
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate()


class ProjectStatus(enum.StrEnum):
    PLANNING = "planning"
    ACTIVE = "active"
    PAUSED = "paused"
    FINISHED = "finished"


class Organization(db.Model):
    """A tenant. Every organisation's slug is public; all else is behind row-level security."""

    __tablename__ = "organizations"
    __table_args__ = (UniqueConstraint("slug", name="organizations_slug_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class User(db.Model):
    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email", name="users_email_key"),
        CheckConstraint("email = lower(email)", name="users_email_lowercase"),
        Index("ix_users_organization_id", "organization_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    email: Mapped[str]
    name: Mapped[str]
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Project(db.Model):
    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("organization_id", "code", name="projects_organization_id_code_key"),
        # The target of the foreign keys that carry the tenant along.
        UniqueConstraint("organization_id", "id", name="projects_organization_id_id_key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    code: Mapped[str]
    name: Mapped[str]
    status: Mapped[ProjectStatus] = mapped_column(
        Enum(ProjectStatus, name="project_status", values_callable=lambda kinds: [k.value for k in kinds]),
        server_default="planning",
    )
    starts_on: Mapped[date | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    budgets: Mapped[list["Budget"]] = relationship(back_populates="project", order_by="Budget.name")


class Budget(db.Model):
    __tablename__ = "budgets"
    __table_args__ = (
        # A foreign key is checked without row-level security: with the tenant in it,
        # no organisation can hang a budget on another one's project.
        ForeignKeyConstraint(
            ["organization_id", "project_id"], ["projects.organization_id", "projects.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("project_id", "name", name="budgets_project_id_name_key"),
        UniqueConstraint("organization_id", "id", name="budgets_organization_id_id_key"),
        CheckConstraint("currency IN ('ARS', 'USD')", name="budgets_currency_known"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int]
    project_id: Mapped[int]
    name: Mapped[str]
    currency: Mapped[str] = mapped_column(server_default="ARS")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    project: Mapped[Project] = relationship(back_populates="budgets")
    items: Mapped[list["BudgetItem"]] = relationship(back_populates="budget", order_by="BudgetItem.id")

    @property
    def total(self) -> Decimal:
        return sum((item.amount for item in self.items), Decimal(0))


class BudgetItem(db.Model):
    __tablename__ = "budget_items"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "budget_id"],
            ["budgets.organization_id", "budgets.id"],
            name="budget_items_organization_id_budget_id_fkey",
            ondelete="CASCADE",
        ),
        UniqueConstraint("budget_id", "description", name="budget_items_budget_id_description_key"),
        CheckConstraint("quantity > 0", name="budget_items_quantity_positive"),
        CheckConstraint("unit_price >= 0", name="budget_items_unit_price_not_negative"),
        Index("ix_budget_items_organization_id", "organization_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int]
    budget_id: Mapped[int]
    description: Mapped[str]
    unit: Mapped[str]
    quantity: Mapped[Decimal] = mapped_column(Numeric(14, 3))
    unit_price: Mapped[Decimal]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    budget: Mapped[Budget] = relationship(back_populates="items")

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.unit_price


class Supplier(db.Model):
    """The catalogue that all organisations share; a repeatable seed keeps it."""

    __tablename__ = "suppliers"
    __table_args__ = (UniqueConstraint("tax_id", name="suppliers_tax_id_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tax_id: Mapped[str]
    name: Mapped[str]
    category: Mapped[str]


class Payment(db.Model):
    __tablename__ = "payments"
    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "project_id"], ["projects.organization_id", "projects.id"]),
        CheckConstraint("amount > 0", name="payments_amount_positive"),
        Index("ix_payments_organization_id", "organization_id"),
        Index("ix_payments_project_id_paid_on", "project_id", "paid_on"),
        Index("ix_payments_supplier_id", "supplier_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int]
    project_id: Mapped[int]
    supplier_id: Mapped[int] = mapped_column(ForeignKey("suppliers.id"))
    amount: Mapped[Decimal]
    currency: Mapped[str] = mapped_column(server_default="ARS")
    paid_on: Mapped[date]
    bank_account: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AuditEntry(db.Model):
    """What was written, by which role. The policies let nobody but the owner change or remove an entry."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_organization_id_at", "organization_id", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    role: Mapped[str] = mapped_column(server_default=text("CURRENT_USER"))
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
