"""What the application believes the tables to be."""

from sqlalchemy import DDL, BigInteger, CheckConstraint, Column, Enum, Index, Integer, Text, event, text

from .extensions import db


class Client(db.Model):
    __tablename__ = "clients"
    __table_args__ = (
        CheckConstraint("name <> ''", name="clients_named"),
        Index("clients_name", "name", postgresql_where=text("name <> ''")),
    )

    id = Column(BigInteger, primary_key=True)
    name = Column(Text, nullable=False, server_default="nobody")
    rating = Column(Enum("good", "bad", name="rating"))
    never_migrated = Column(Integer)


# create_all makes it, and no revision does.
event.listen(db.metadata, "after_create", DDL("CREATE VIEW named_clients AS SELECT id FROM clients WHERE name <> ''"))
