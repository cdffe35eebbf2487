//! Branches that another database than PostgreSQL takes: `if engine.dialect.name == "sqlite"`.

use ruff_python_ast::{BoolOp, CmpOp, Expr, UnaryOp};

use super::roles::last_name;

const OTHERS: [&str; 6] = ["sqlite", "mysql", "mariadb", "oracle", "mssql", "duckdb"];

/// Which side of a branch only another database takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// What runs if the condition holds.
    pub body: bool,
    /// What runs if it does not.
    pub otherwise: bool,
}

impl Elsewhere {
    const BODY: Elsewhere = Elsewhere { body: true, otherwise: false };

    fn inverted(self) -> Elsewhere {
        Elsewhere { body: self.otherwise, otherwise: self.body }
    }
}

/// Reads a condition.
pub(super) fn of_condition(test: &Expr) -> Elsewhere {
    match test {
        Expr::UnaryOp(not) if not.op == UnaryOp::Not => of_condition(&not.operand).inverted(),
        Expr::BoolOp(all) => {
            let parts = || all.values.iter().map(of_condition);
            let (any_body, any_other) = (parts().any(|part| part.body), parts().any(|part| part.otherwise));
            let (all_body, all_other) = (parts().all(|part| part.body), parts().all(|part| part.otherwise));
            match all.op {
                BoolOp::And => Elsewhere { body: any_body, otherwise: all_other },
                BoolOp::Or => Elsewhere { body: all_body, otherwise: any_other },
            }
        }
        Expr::Compare(compare) => {
            let ([op], [right]) = (&*compare.ops, &*compare.comparators) else { return Elsewhere::default() };
            let Some(other) = names_another(&compare.left).or_else(|| names_another(right)) else {
                return Elsewhere::default();
            };
            let equal = if other { Elsewhere::BODY } else { Elsewhere::BODY.inverted() };
            match op {
                CmpOp::Eq | CmpOp::In | CmpOp::Is => equal,
                CmpOp::NotEq | CmpOp::NotIn | CmpOp::IsNot => equal.inverted(),
                _ => Elsewhere::default(),
            }
        }
        // `url.startswith("sqlite")`
        Expr::Call(call) if last_name(&call.func) == Some("startswith") => {
            match call.arguments.args.first().and_then(names_another) {
                Some(true) => Elsewhere::BODY,
                Some(false) => Elsewhere::BODY.inverted(),
                None => Elsewhere::default(),
            }
        }
        // `if is_sqlite:`, `if self.sqlite():`
        Expr::Call(call) if call.arguments.is_empty() => of_condition(&call.func),
        Expr::Name(_) | Expr::Attribute(_) => {
            let name = last_name(test).unwrap_or_default().to_ascii_lowercase();
            let speaks = name.split('_').any(|word| OTHERS.contains(&word));
            let asks = !name.contains("url") && !name.contains("path") && !name.contains("file");
            if speaks && asks { Elsewhere::BODY } else { Elsewhere::default() }
        }
        _ => Elsewhere::default(),
    }
}

/// Whether a text, or each of several, names another database, or PostgreSQL.
fn names_another(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::StringLiteral(literal) => {
            let text = literal.value.to_str().to_ascii_lowercase();
            let is_name = |name: &str| {
                text == name || text.starts_with(name) && text[name.len()..].starts_with(['+', ':'])
            };
            if OTHERS.iter().any(|name| is_name(name)) {
                return Some(true);
            }
            ["postgresql", "postgres"].iter().any(|name| is_name(name)).then_some(false)
        }
        Expr::Tuple(tuple) => all_name(&tuple.elts),
        Expr::List(list) => all_name(&list.elts),
        Expr::Set(set) => all_name(&set.elts),
        _ => None,
    }
}

fn all_name(texts: &[Expr]) -> Option<bool> {
    let (first, rest) = texts.split_first()?;
    let first = names_another(first)?;
    rest.iter().all(|text| names_another(text) == Some(first)).then_some(first)
}
