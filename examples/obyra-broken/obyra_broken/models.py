"""What the application believes the tables to be."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Enum, Integer, Text

from .extensions import db


class Client(db.Model):
    __tablename__ = "clients"
    __table_args__ = (CheckConstraint("name <> ''", name="clients_named"),)

    id = Column(BigInteger, primary_key=True)
    name = Column(Text, nullable=False)
    rating = Column(Enum("good", "bad", name="rating"))
    never_migrated = Column(Integer)
