//! Whether a syntax tree is deeper than may be walked or freed by recursion.

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_pattern, walk_stmt};
use ruff_python_ast::{Expr, Pattern, Stmt};

use super::source::DEPTH_MAX;

/// Whether a file nests deeper than Python compiles. Needs a large stack itself.
pub(crate) fn exceeds(body: &[Stmt]) -> bool {
    let mut probe = Probe { depth: 0, exceeded: false };
    probe.visit_body(body);
    probe.exceeded
}

struct Probe {
    depth: usize,
    exceeded: bool,
}

impl Probe {
    fn deeper(&mut self, visit: impl FnOnce(&mut Self)) {
        if self.exceeded || self.depth >= DEPTH_MAX {
            self.exceeded = true;
            return;
        }
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }
}

impl<'a> Visitor<'a> for Probe {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        self.deeper(|probe| walk_stmt(probe, stmt));
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        self.deeper(|probe| walk_expr(probe, expr));
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        self.deeper(|probe| walk_pattern(probe, pattern));
    }
}
