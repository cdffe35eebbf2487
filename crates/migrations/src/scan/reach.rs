//! Who runs a piece of code: the start of the application, a request, a person, a test, or nobody.
//!
//! The question is asked backwards, from the few places that matter to whoever mentions them, so that it
//! costs nothing where there is nothing to ask.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ruff_python_ast::name::Name;

use super::facts::{BODY, Base, MARKS, Mention, Role, ScopeKind, Symbol, mark};
use super::project::{Node, Project, Purpose};

/// Who runs it, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Boot,
    Request,
    Command,
    Script,
    Test,
    Migration,
    Dead,
}

impl Reach {
    /// The word for it in every language.
    pub fn word(self) -> &'static str {
        match self {
            Reach::Boot => "boot",
            Reach::Request => "request",
            Reach::Command => "command",
            Reach::Script => "script",
            Reach::Test => "test",
            Reach::Migration => "migration",
            Reach::Dead => "dead",
        }
    }
}

/// Who runs each of some places, and by which way.
pub(super) struct Reached {
    labels: HashMap<Node, (Reach, Option<Node>)>,
    /// For each file that the application loads, the file that imports it; itself for a root.
    booted: Vec<Option<usize>>,
}

/// Names by which a class's own name is enough to call its method.
const CALLED_BY_CLASS: [&str; 6] =
    ["__init__", "__new__", "__post_init__", "__call__", "__enter__", "__aenter__"];

/// Finds out who runs the given places.
pub(super) fn of(project: &Project, roots: &BTreeSet<usize>, places: &BTreeSet<Node>) -> Reached {
    if places.is_empty() {
        return Reached { labels: HashMap::new(), booted: Vec::new() };
    }
    let imports = Imports::of(project);
    let booted = boot(project, &imports, roots);
    let edges = callers(project, &imports, places);
    let mut reached = Reached { labels: HashMap::new(), booted };
    let mut successors: HashMap<Node, Vec<Node>> = HashMap::new();
    let mut nodes: BTreeSet<Node> = places.clone();
    for (callee, caller) in &edges {
        successors.entry(*caller).or_default().push(*callee);
        nodes.extend([*callee, *caller]);
    }
    let mut intrinsic: BTreeMap<Reach, Vec<Node>> = BTreeMap::new();
    for node in nodes {
        if let Some(reach) = reached.own(project, roots, node) {
            intrinsic.entry(reach).or_default().push(node);
        }
    }
    for (reach, starts) in intrinsic {
        reached.spread(project, reach, starts, &successors);
    }
    reached
}

impl Reached {
    /// Who runs a place.
    pub fn at(&self, node: Node) -> Reach {
        self.labels.get(&node).map_or(Reach::Dead, |(reach, _)| *reach)
    }

    /// The way from the entry point to a place, as a person reads it.
    pub fn way(&self, project: &Project, node: Node) -> String {
        let mut way = vec![node];
        while let Some((_, Some(before))) = self.labels.get(&way[way.len() - 1]) {
            way.push(*before);
            if way.len() > 12 {
                break;
            }
        }
        let mut steps: Vec<String> = way.iter().map(|node| shown(project, *node)).collect();
        let mut module = way[way.len() - 1].0;
        if way[way.len() - 1].1 == BODY && self.at(node) == Reach::Boot {
            while let Some(importer) = self.booted[module].filter(|importer| *importer != module) {
                steps.push(project.modules[importer].source.file.display().to_string());
                module = importer;
            }
        }
        steps.reverse();
        steps.join(" → ")
    }

    /// What a place is by itself.
    fn own(&self, project: &Project, roots: &BTreeSet<usize>, (module, scope): Node) -> Option<Reach> {
        match project.purposes[module] {
            Purpose::Test => return Some(Reach::Test),
            Purpose::Migration => return Some(Reach::Migration),
            Purpose::Script | Purpose::Application => {}
        }
        let facts = &project.modules[module];
        // Without a known start of the application, every part of it may be loaded.
        let loaded = self.booted[module].is_some()
            || roots.is_empty() && project.purposes[module] == Purpose::Application;
        match facts.scopes[scope as usize].kind {
            ScopeKind::Main => Some(Reach::Script),
            ScopeKind::Body | ScopeKind::Class => {
                let has_main = facts.scopes.iter().any(|scope| scope.kind == ScopeKind::Main);
                let is_main = facts.source.file.file_name().is_some_and(|name| name == "__main__.py");
                if self.booted[module].is_some() {
                    Some(Reach::Boot)
                } else if has_main || is_main || project.purposes[module] == Purpose::Script {
                    Some(Reach::Script)
                } else {
                    None
                }
            }
            ScopeKind::Function => match facts.scopes[scope as usize].role {
                Role::Startup if loaded => Some(Reach::Boot),
                Role::Handler if loaded => Some(Reach::Request),
                Role::Command => Some(Reach::Command),
                _ if facts.makes_app.contains(&scope) && self.booted[module].is_some() => Some(Reach::Boot),
                _ => None,
            },
        }
    }

    fn spread(
        &mut self,
        project: &Project,
        reach: Reach,
        starts: Vec<Node>,
        successors: &HashMap<Node, Vec<Node>>,
    ) {
        let mut pending: VecDeque<(Node, Option<Node>)> =
            starts.into_iter().map(|node| (node, None)).collect();
        while let Some((node, before)) = pending.pop_front() {
            if self.labels.contains_key(&node) || !passes(project, reach, node) {
                continue;
            }
            self.labels.insert(node, (reach, before));
            let next = successors.get(&node).into_iter().flatten();
            pending.extend(next.map(|callee| (*callee, Some(node))));
        }
    }
}

/// Whether being mentioned by such code makes a place run by it: who registers a handler does not call it,
/// and nothing turns a test into a part of the application.
fn passes(project: &Project, reach: Reach, (module, scope): Node) -> bool {
    let role = project.modules[module].scopes[scope as usize].role;
    match project.purposes[module] {
        Purpose::Test => reach == Reach::Test,
        Purpose::Migration => reach == Reach::Migration,
        _ => match role {
            Role::Handler => reach != Reach::Boot,
            Role::Command => !matches!(reach, Reach::Boot | Reach::Request),
            Role::Plain | Role::Startup => true,
        },
    }
}

/// Which files execute which.
struct Imports {
    /// For each file: who imports it, and in which scope.
    importers: Vec<Vec<Node>>,
    imported: Vec<Vec<usize>>,
    /// For each file, a file that stands for all those which imports connect with it. A repository may hold
    /// several applications, and a method of one is not called by another.
    together: Vec<usize>,
}

impl Imports {
    fn of(project: &Project) -> Self {
        let count = project.modules.len();
        let mut imports = Imports {
            importers: vec![Vec::new(); count],
            imported: vec![Vec::new(); count],
            together: (0..count).collect(),
        };
        for (at, module) in project.modules.iter().enumerate() {
            let mut executed = BTreeSet::new();
            for import in module.imports.iter().filter(|import| !import.typing) {
                let scope = module.runs_in(import.scope);
                project.tree.executed_by(at, &import.symbol, |target| {
                    if target != at {
                        executed.insert((target, scope));
                    }
                });
            }
            for (target, scope) in executed {
                if project.purposes[at] != Purpose::Test {
                    imports.join(at, target);
                }
                imports.importers[target].push((at, scope));
                if module.scopes[scope as usize].kind != ScopeKind::Main {
                    imports.imported[at].push(target);
                }
            }
        }
        imports
    }

    fn join(&mut self, a: usize, b: usize) {
        let (first, second) = (self.stand_in(a), self.stand_in(b));
        // Short ways: whoever was asked stands directly by the result.
        for file in [first, a, b] {
            self.together[file] = second;
        }
    }

    fn stand_in(&self, mut file: usize) -> usize {
        while self.together[file] != file {
            file = self.together[file];
        }
        file
    }
}

/// The files that the application loads, each with the file that imports it.
fn boot(project: &Project, imports: &Imports, roots: &BTreeSet<usize>) -> Vec<Option<usize>> {
    let mut booted = vec![None; project.modules.len()];
    let mut pending: VecDeque<(usize, usize)> = roots.iter().map(|root| (*root, *root)).collect();
    while let Some((module, importer)) = pending.pop_front() {
        let foreign = matches!(project.purposes[module], Purpose::Test | Purpose::Migration);
        if booted[module].is_some() || foreign {
            continue;
        }
        booted[module] = Some(importer);
        pending.extend(imports.imported[module].iter().map(|next| (*next, module)));
    }
    booted
}

/// Every pair of a place and one who mentions it, transitively.
fn callers(project: &Project, imports: &Imports, places: &BTreeSet<Node>) -> Vec<(Node, Node)> {
    let mut edges = Vec::new();
    let mut known: BTreeSet<Node> = places.clone();
    let mut frontier: Vec<Node> = places.iter().copied().collect();
    let aliases = aliases(project);
    while !frontier.is_empty() {
        let mut next = Vec::new();
        let mut wanted: HashMap<&str, Vec<Node>> = HashMap::new();
        for (module, scope) in frontier {
            let facts = &project.modules[module].scopes[scope as usize];
            match facts.kind {
                ScopeKind::Body | ScopeKind::Class => {
                    next.extend(
                        imports.importers[module].iter().map(|importer| ((module, scope), *importer)),
                    );
                }
                ScopeKind::Main => {}
                ScopeKind::Function => {
                    if facts.registered {
                        let holder = project.modules[module].runs_in(facts.parent);
                        next.push(((module, scope), (module, holder)));
                    }
                    for name in aliases.get(facts.name.as_str()).into_iter().flatten() {
                        wanted.entry(name).or_default().push((module, scope));
                    }
                    wanted.entry(&facts.name).or_default().push((module, scope));
                    if CALLED_BY_CLASS.contains(&facts.name.as_str()) {
                        let class = &project.modules[module].scopes[facts.parent as usize].name;
                        wanted.entry(class).or_default().push((module, scope));
                    }
                }
            }
        }
        mentions((project, imports), &wanted, &mut next);
        frontier =
            next.iter().filter(|(_, caller)| known.insert(*caller)).map(|(_, caller)| *caller).collect();
        edges.extend(next);
    }
    edges
}

/// The other names under which a name is imported: `from store import init as start`.
fn aliases(project: &Project) -> HashMap<&str, BTreeSet<&str>> {
    let mut aliases: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for import in project.modules.iter().flat_map(|module| &module.imports) {
        if let Some(name) = import.symbol.path.last()
            && import.bound != *name
            && import.bound != "*"
        {
            aliases.entry(name).or_default().insert(&import.bound);
        }
    }
    aliases
}

fn mentions(
    (project, imports): (&Project, &Imports),
    wanted: &HashMap<&str, Vec<Node>>,
    out: &mut Vec<(Node, Node)>,
) {
    if wanted.is_empty() {
        return;
    }
    // The ends of a name sort out most without hashing them.
    let mut marks = [false; MARKS];
    wanted.keys().for_each(|name| marks[usize::from(mark(name))] = true);
    for (at, module) in project.modules.iter().enumerate() {
        for mention in &module.mentions {
            if !marks[usize::from(mention.mark)] {
                continue;
            }
            for callee in wanted.get(module.text(mention.name)).into_iter().flatten() {
                let caller = (at, module.runs_in(mention.scope));
                if caller != *callee && means((project, imports), at, mention, *callee) {
                    out.push((*callee, caller));
                }
            }
        }
    }
}

/// Whether a mention can mean a function.
fn means(
    (project, imports): (&Project, &Imports),
    at: usize,
    mention: &Mention,
    (module, scope): Node,
) -> bool {
    let facts = &project.modules[module];
    let function = &facts.scopes[scope as usize];
    let parent = facts.scopes[function.parent as usize].kind;
    let name = project.modules[at].text(mention.name);
    let by_class = parent == ScopeKind::Class && name != function.name;
    match mention.base {
        Base::Nothing if parent == ScopeKind::Class && !by_class => false,
        Base::Nothing if at == module => true,
        Base::Nothing => {
            imported_as(project, at, name, &[]).any(|node| same(project, node, (module, scope), by_class))
        }
        // A method of an unknown object: any of that name.
        _ if parent == ScopeKind::Class && !by_class => imports.stand_in(at) == imports.stand_in(module),
        Base::Name(base) => {
            let base = project.modules[at].text(base);
            imported_as(project, at, base, &[name]).any(|node| same(project, node, (module, scope), by_class))
        }
        Base::Other => {
            parent == ScopeKind::Body && function.kind == ScopeKind::Function && {
                // `app.db.init()`: the whole path is rarely written; the import says whether it may be meant.
                let mut may_mean = false;
                for import in &project.modules[at].imports {
                    project.tree.executed_by(at, &import.symbol, |executed| may_mean |= executed == module);
                }
                may_mean
            }
        }
    }
}

fn same(project: &Project, found: Node, wanted: Node, by_class: bool) -> bool {
    if by_class {
        let class = project.modules[wanted.0].scopes[wanted.1 as usize].parent;
        found == (wanted.0, class)
    } else {
        found == wanted
    }
}

/// The functions or classes that a name means through the imports of a file.
fn imported_as<'p>(
    project: &'p Project,
    at: usize,
    bound: &'p str,
    rest: &'p [&'p str],
) -> impl Iterator<Item = Node> + 'p {
    let imports = project.modules[at].imports.iter();
    let matching = imports.filter(move |import| import.bound == bound || import.bound == "*");
    matching.filter_map(move |import| {
        let mut symbol: Symbol = import.symbol.clone();
        if import.bound == "*" {
            symbol.path = vec![Name::new(bound)];
        } else if symbol.path.is_empty() && symbol.module.split('.').next() == Some(bound) {
            symbol.module = Name::new(bound);
        }
        symbol.path.extend(rest.iter().map(Name::new));
        project.function(&project.target(at, &symbol)?)
    })
}

/// `app/db.py:init`.
fn shown(project: &Project, (module, scope): Node) -> String {
    let facts = &project.modules[module];
    let file = facts.source.file.display();
    match facts.scopes[scope as usize].kind {
        ScopeKind::Body => file.to_string(),
        _ => format!("{file}:{}", qualified(project, (module, scope))),
    }
}

/// `Store.run`, `__main__`, or nothing for the body of a file.
pub(super) fn qualified(project: &Project, (module, mut scope): Node) -> String {
    let scopes = &project.modules[module].scopes;
    let mut names: Vec<&str> = Vec::new();
    while scope != BODY {
        names.push(&scopes[scope as usize].name);
        scope = scopes[scope as usize].parent;
    }
    names.reverse();
    names.join(".")
}
