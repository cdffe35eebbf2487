//! What an expression stands for.

use ruff_python_ast::{
    self as ast, BoolOp, CmpOp, Expr, InterpolatedStringElement, Number, Operator, UnaryOp,
};

use super::super::condition::Condition;
use super::super::tokens::HOLE;
use super::flow::Machine;
use super::texts;
use super::value::{Shape, Value};
use crate::scan::is_self;

/// Texts and lists that grow beyond this were made to.
const SIZE_MAX: usize = 1_000_000;

impl<'a> Machine<'a, '_> {
    /// Evaluates an expression, and follows the calls in it.
    pub fn evaluate(&mut self, expr: &'a Expr) -> Value {
        if !self.step() {
            return Value::Unknown;
        }
        match expr {
            Expr::NoneLiteral(_) => Value::None,
            Expr::BooleanLiteral(literal) => Value::Bool(literal.value),
            Expr::NumberLiteral(literal) => match &literal.value {
                Number::Int(number) => number.as_i64().map_or(Value::Unknown, Value::Number),
                _ => Value::Unknown,
            },
            Expr::StringLiteral(literal) => Value::Text(literal.value.to_str().to_owned()),
            Expr::FString(literal) => self.f_string(literal),
            Expr::BinOp(operation) => self.operation(operation),
            Expr::UnaryOp(operation) => {
                let value = self.evaluate(&operation.operand);
                match (operation.op, &value) {
                    (UnaryOp::Not, _) => Value::Truth(value.truth(&self.written(&operation.operand)).not()),
                    (UnaryOp::USub, Value::Number(number)) => Value::Number(-number),
                    _ => Value::Unknown,
                }
            }
            Expr::BoolOp(operation) => self.decided(operation),
            Expr::Compare(comparison) => self.comparison(comparison),
            Expr::Name(name) => self.lookup(name.id.as_str()),
            Expr::Attribute(attribute) => self.attribute(attribute),
            Expr::Subscript(item) => self.item(item),
            Expr::Call(call) => self.evaluate_call(call),
            Expr::List(ast::ExprList { elts, .. })
            | Expr::Tuple(ast::ExprTuple { elts, .. })
            | Expr::Set(ast::ExprSet { elts, .. }) => self.list(elts),
            Expr::Dict(dict) => self.dictionary(dict),
            Expr::ListComp(ast::ExprListComp { elt, generators, .. })
            | Expr::SetComp(ast::ExprSetComp { elt, generators, .. })
            | Expr::Generator(ast::ExprGenerator { elt, generators, .. }) => {
                self.comprehension(elt, generators)
            }
            Expr::If(choice) => self.either(choice),
            Expr::Named(named) => {
                let value = self.evaluate(&named.value);
                self.assign(&named.target, value.clone());
                value
            }
            Expr::Await(awaited) => self.evaluate(&awaited.value),
            Expr::Starred(starred) => self.evaluate(&starred.value),
            Expr::Yield(yielded) => {
                let value = yielded.value.as_deref().map_or(Value::None, |value| self.evaluate(value));
                if let Some(frame) = self.frames.last_mut() {
                    frame.yields.push(value);
                }
                Value::Unknown
            }
            _ => Value::Unknown,
        }
    }

    fn f_string(&mut self, literal: &'a ast::ExprFString) -> Value {
        let mut out = String::new();
        for part in &literal.value {
            match part {
                ast::FStringPart::Literal(text) => out.push_str(text),
                ast::FStringPart::FString(inner) => {
                    for element in &inner.elements {
                        match element {
                            InterpolatedStringElement::Literal(text) => out.push_str(&text.value),
                            InterpolatedStringElement::Interpolation(hole) => {
                                let value = self.evaluate(&hole.expression);
                                // A format changes what is shown.
                                let plain = hole.format_spec.is_none() && hole.conversion.is_none();
                                out.push_str(&if plain { value.rendered() } else { HOLE.to_string() });
                            }
                        }
                    }
                }
            }
        }
        Value::Text(out)
    }

    fn operation(&mut self, operation: &'a ast::ExprBinOp) -> Value {
        let (left, right) = (self.evaluate(&operation.left), self.evaluate(&operation.right));
        match operation.op {
            Operator::Add => added(left, right),
            Operator::Mod => match left {
                Value::Text(format) => Value::Text(texts::percent(&format, &right)),
                _ => Value::Unknown,
            },
            Operator::BitOr => match (left, right) {
                (Value::List(one), Value::List(other)) => Value::List([one, other].concat()),
                (Value::Pairs(one), Value::Pairs(other)) => Value::Pairs([one, other].concat()),
                _ => Value::Unknown,
            },
            _ => Value::Unknown,
        }
    }

    /// `a += b`.
    pub fn augmented(&mut self, assign: &'a ast::StmtAugAssign) -> Value {
        let (left, right) = (self.evaluate(&assign.target), self.evaluate(&assign.value));
        if assign.op == Operator::Add { added(left, right) } else { Value::Unknown }
    }

    /// `a and b`, `a or b`: a condition, or the first value that decides.
    fn decided(&mut self, operation: &'a ast::ExprBoolOp) -> Value {
        let any = operation.op == BoolOp::Or;
        let mut conditions = Vec::new();
        let mut last = Value::Unknown;
        for value in &operation.values {
            last = self.evaluate(value);
            let truth = last.truth(&self.written(value));
            if truth == Condition::Known(any) && conditions.is_empty() {
                return last;
            }
            conditions.push(truth);
        }
        if let ([.., Condition::Known(_)], true) = (conditions.as_slice(), conditions.len() > 1)
            && conditions[..conditions.len() - 1].iter().all(|each| *each == Condition::Known(!any))
        {
            return last;
        }
        Value::Truth(if any { Condition::any(conditions) } else { Condition::all(conditions) })
    }

    fn comparison(&mut self, comparison: &'a ast::ExprCompare) -> Value {
        let mut left = self.evaluate(&comparison.left);
        let written = self.written_comparison(comparison);
        let mut conditions = Vec::new();
        for (operator, right) in comparison.ops.iter().zip(&comparison.comparators) {
            let right = self.evaluate(right);
            let opaque = || Condition::Opaque(written.clone());
            let condition = match operator {
                CmpOp::Eq => left.equals(&right, &written),
                CmpOp::NotEq => left.equals(&right, &written).not(),
                CmpOp::Is => match &right {
                    Value::None => left.is_none(&written),
                    Value::Bool(_) => left.equals(&right, &written),
                    _ => opaque(),
                },
                CmpOp::IsNot => match &right {
                    Value::None => left.is_none(&written).not(),
                    Value::Bool(_) => left.equals(&right, &written).not(),
                    _ => opaque(),
                },
                CmpOp::In => left.is_in(&right, &written),
                CmpOp::NotIn => left.is_in(&right, &written).not(),
                CmpOp::Gt => left.compares(">", &right).unwrap_or_else(opaque),
                CmpOp::GtE => left.compares(">=", &right).unwrap_or_else(opaque),
                CmpOp::Lt => left.compares("<", &right).unwrap_or_else(opaque),
                CmpOp::LtE => left.compares("<=", &right).unwrap_or_else(opaque),
            };
            conditions.push(condition);
            left = right;
        }
        Value::Truth(Condition::all(conditions))
    }

    fn written_comparison(&self, comparison: &ast::ExprCompare) -> String {
        let last = comparison.comparators.last().map(|last| self.written(last)).unwrap_or_default();
        format!("{} … {last}", self.written(&comparison.left))
    }

    /// What a name of a class, or of the class at hand, stands for.
    pub fn attribute_value(&self, attribute: &ast::ExprAttribute) -> Value {
        let (Expr::Name(base), name) = (&*attribute.value, attribute.attr.as_str()) else {
            return Value::Unknown;
        };
        let class = match base.id.as_str() {
            own if is_self(own) => self.frames.iter().rev().find_map(|frame| frame.class),
            other => self.classes.keys().copied().find(|class| *class == other),
        };
        let Some(class) = class else { return Value::Unknown };
        if let Some(value) = self.classes.get(class).and_then(|names| names.get(name)) {
            return value.clone();
        }
        let is_method = |function: &super::Function<'_>| {
            function.class == Some(class) && function.def.name.as_str() == name
        };
        self.survey.functions.iter().position(is_method).map_or(Value::Unknown, Value::Function)
    }

    fn attribute(&mut self, attribute: &'a ast::ExprAttribute) -> Value {
        let name = attribute.attr.as_str();
        match self.attribute_value(attribute) {
            Value::Unknown => {}
            value => return value,
        }
        match self.evaluate(&attribute.value) {
            Value::Module(module) => Value::Imported(module, name.to_owned()),
            Value::Listed(names) => Value::NameOf(names),
            Value::Elsewhere => Value::Elsewhere,
            _ => Value::Unknown,
        }
    }

    fn item(&mut self, item: &'a ast::ExprSubscript) -> Value {
        let (value, key) = (self.evaluate(&item.value), self.evaluate(&item.slice));
        match (value, key) {
            (Value::List(list), Value::Number(at)) => {
                let at = if at < 0 { at + list.len() as i64 } else { at };
                usize::try_from(at).ok().and_then(|at| list.get(at).cloned()).unwrap_or(Value::Unknown)
            }
            (Value::Pairs(pairs), key) => {
                pairs.into_iter().find(|(known, _)| *known == key).map_or(Value::Unknown, |(_, value)| value)
            }
            (Value::Fetched(reply, Shape::Row), Value::Number(0)) => Value::Fetched(reply, Shape::Scalar),
            (Value::Fetched(reply, Shape::Rows), Value::Number(0)) => Value::Fetched(reply, Shape::Row),
            // The name of a description, or the only column of a row.
            (Value::Listed(names), Value::Text(key)) if key.ends_with("name") => Value::NameOf(names),
            (Value::Listed(names), Value::Number(0)) => Value::NameOf(names),
            _ => Value::Unknown,
        }
    }

    fn list(&mut self, elements: &'a [Expr]) -> Value {
        let mut list = Vec::with_capacity(elements.len());
        for element in elements {
            let value = self.evaluate(element);
            match (element, value) {
                (Expr::Starred(_), Value::List(inner)) => list.extend(inner),
                (Expr::Starred(_), _) => return Value::Unknown,
                (_, value) => list.push(value),
            }
        }
        Value::List(list)
    }

    fn dictionary(&mut self, dictionary: &'a ast::ExprDict) -> Value {
        let mut pairs = Vec::with_capacity(dictionary.items.len());
        for item in &dictionary.items {
            let value = self.evaluate(&item.value);
            match &item.key {
                Some(key) => pairs.push((self.evaluate(key), value)),
                None => match value {
                    Value::Pairs(inner) => pairs.extend(inner),
                    _ => return Value::Unknown,
                },
            }
        }
        Value::Pairs(pairs)
    }

    /// A comprehension over what is known is a list; over what the database lists, the names of it.
    fn comprehension(&mut self, element: &'a Expr, generators: &'a [ast::Comprehension]) -> Value {
        let [only] = generators else {
            self.visit_unknown(element, generators);
            return Value::Unknown;
        };
        let iterable = self.evaluate(&only.iter);
        if let Some(described) = iterable.described() {
            self.assign(&only.target, described);
            let value = self.evaluate(element);
            return match value {
                Value::NameOf(names) if only.ifs.is_empty() => Value::Names(names),
                // `any(column["name"] == "phone" for column in …)`: any() asks.
                Value::Truth(condition) if only.ifs.is_empty() => Value::List(vec![Value::Truth(condition)]),
                _ => Value::Unknown,
            };
        }
        let Some(elements) = iterable.elements() else {
            self.visit_unknown(element, generators);
            return Value::Unknown;
        };
        let mut list = Vec::new();
        for each in elements {
            if !self.step() || list.len() > SIZE_MAX {
                return Value::Unknown;
            }
            self.assign(&only.target, each);
            let mut chosen = Condition::Known(true);
            for test in &only.ifs {
                let value = self.evaluate(test);
                chosen = Condition::all(vec![chosen, value.truth(&self.written(test))]);
            }
            match chosen {
                Condition::Known(true) => list.push(self.evaluate(element)),
                Condition::Known(false) => {}
                // Whether it is in the list is known at run time: what is made of the list is not known.
                _ => return Value::Unknown,
            }
        }
        Value::List(list)
    }

    fn visit_unknown(&mut self, element: &'a Expr, generators: &'a [ast::Comprehension]) {
        for generator in generators {
            self.evaluate(&generator.iter);
            self.assign(&generator.target, Value::Unknown);
        }
        self.evaluate(element);
    }

    fn either(&mut self, choice: &'a ast::ExprIf) -> Value {
        let test = self.evaluate(&choice.test);
        match test.truth(&self.written(&choice.test)) {
            Condition::Known(true) => self.evaluate(&choice.body),
            Condition::Known(false) => self.evaluate(&choice.orelse),
            condition => {
                let (one, other) = (self.evaluate(&choice.body), self.evaluate(&choice.orelse));
                match (one, other) {
                    (one, other) if one == other => one,
                    (Value::Bool(true), Value::Bool(false)) => Value::Truth(condition),
                    (Value::Bool(false), Value::Bool(true)) => Value::Truth(condition.not()),
                    _ => Value::Unknown,
                }
            }
        }
    }
}

fn added(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::List(one), Value::List(other)) if one.len() + other.len() < SIZE_MAX => {
            Value::List([one, other].concat())
        }
        (Value::Number(one), Value::Number(other)) => {
            one.checked_add(other).map_or(Value::Unknown, Value::Number)
        }
        (Value::Text(one), other) if one.len() < SIZE_MAX => Value::Text(one + &other.rendered()),
        (one, Value::Text(other)) if other.len() < SIZE_MAX => Value::Text(one.rendered() + &other),
        _ => Value::Unknown,
    }
}
