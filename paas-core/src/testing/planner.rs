//! The promises of [`Planner`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::domain::{CommitId, TreeId};
use crate::error::{Error, Fault, Kind, Result, Retry};
use crate::git::{PathFilter, SourceTree, TreeEntry};
use crate::memory::{MemoryFiles, MemoryTree};
use crate::plan::Planner;

/// Generous: a planner looks at a handful of manifests, however many files there are.
const MAX_READS: usize = 256;

/// What the suite needs.
#[derive(Clone, Debug)]
pub struct Harness {
    /// The planner under test.
    pub planner: Arc<dyn Planner>,
}

/// A tree in memory that counts how often it is read, and can have files without an end.
#[derive(Debug)]
pub struct PlannerTree {
    tree: MemoryTree,
    endless: BTreeSet<String>,
    is_broken: bool,
    reads: AtomicUsize,
}

impl PlannerTree {
    /// A tree of these files.
    pub fn new(files: impl Into<MemoryFiles>) -> Self {
        Self {
            tree: MemoryTree::new(files).expect("the paths are safe"),
            endless: BTreeSet::new(),
            is_broken: false,
            reads: AtomicUsize::new(0),
        }
    }

    /// Lets no limit be enough for one of its files.
    #[must_use]
    pub fn with_endless(mut self, path: &str) -> Self {
        self.endless.insert(path.to_owned());
        self
    }

    /// Lets every read fail, as when the store of objects is lost.
    #[must_use]
    pub fn broken(mut self) -> Self {
        self.is_broken = true;
        self
    }

    /// How often a file was read.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<()> {
        if self.is_broken {
            return Err(Error::new(Kind::Unavailable, "tree.read", "the objects cannot be read now"));
        }
        Ok(())
    }
}

#[async_trait]
impl SourceTree for PlannerTree {
    fn id(&self) -> TreeId {
        self.tree.id()
    }

    fn commit(&self) -> CommitId {
        self.tree.commit()
    }

    async fn entries(&self) -> Result<Arc<Vec<TreeEntry>>> {
        self.check()?;
        self.tree.entries().await
    }

    async fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.endless.contains(path) {
            let message = format!("`{path}` has more than {max_bytes} bytes");
            return Err(Error::invalid("tree.read", message).code("too_large"));
        }
        self.tree.read(path, max_bytes).await
    }

    fn archive(&self, include: PathFilter) -> BoxStream<'static, Result<Bytes>> {
        self.tree.archive(include)
    }
}

fn site() -> PlannerTree {
    PlannerTree::new([("index.html", "<h1>hello</h1>"), ("css/style.css", "h1 { color: teal }")])
}

fn flask() -> PlannerTree {
    PlannerTree::new([("requirements.txt", "flask\n"), ("app.py", "app = Flask(__name__)\n")])
}

fn express() -> PlannerTree {
    PlannerTree::new([
        (
            "package.json",
            r#"{"scripts":{"start":"node server.js"},"dependencies":{"express":"5","cors":"2"}}"#,
        ),
        ("server.js", ""),
    ])
}

fn assert_is_users_fault_with_hint(error: &Error) {
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
    assert_eq!(error.whose(), Fault::User, "{error:?}");
    assert_eq!(error.retryable(), Retry::Permanent, "{error:?}");
    assert!(error.hinted().is_some_and(|hint| !hint.is_empty()), "without a hint: {error:?}");
}

/// The same tree gives the same plan, to the byte.
pub async fn the_same_tree_gives_the_same_plan(harness: &Harness) {
    for make in [site, flask, express] {
        let first = harness.planner.plan(Arc::new(make())).await.unwrap();
        for _ in 0..8 {
            let again = harness.planner.plan(Arc::new(make())).await.unwrap();
            assert_eq!(serde_json::to_vec(&first).unwrap(), serde_json::to_vec(&again).unwrap());
        }
    }
}

/// A plan says what decided, why, and what it starts from, and survives being stored.
pub async fn a_plan_explains_itself_and_can_be_stored(harness: &Harness) {
    let plan = harness.planner.plan(Arc::new(site())).await.unwrap();
    assert!(!plan.recipe.is_empty());
    assert!(!plan.reasons.is_empty());
    assert!(plan.dockerfile.text().contains("FROM "));
    let stored = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<crate::BuildPlan>(&stored).unwrap(), plan);
}

/// A Dockerfile in the tree wins over everything else, as it stands there.
pub async fn a_dockerfile_in_the_tree_wins(harness: &Harness) {
    let text = "FROM example/base:1 AS one\nFROM one AS two\nFROM example/base:1\nCOPY --from=two /a /a\n";
    let tree = PlannerTree::new([
        ("Dockerfile", text),
        ("index.html", "<h1>hello</h1>"),
        ("package.json", "{\"scripts\":{\"start\":\"node .\"}}"),
    ]);
    let plan = harness.planner.plan(Arc::new(tree)).await.unwrap();
    assert_eq!(plan.recipe, "dockerfile");
    assert_eq!(
        plan.dockerfile,
        crate::Dockerfile::Repository { path: "Dockerfile".to_owned(), text: text.to_owned() }
    );
    assert_eq!(plan.base_images, ["example/base:1"], "each base image once");
}

/// A tree in which nothing fits is the user's fault, and the hint says what was looked for.
pub async fn an_empty_tree_is_the_users_fault(harness: &Harness) {
    let error = harness.planner.plan(Arc::new(PlannerTree::new(MemoryFiles::default()))).await.unwrap_err();
    assert_is_users_fault_with_hint(&error);
}

/// Garbage where a manifest should be gives a plan or the user's fault, never a defect.
pub async fn garbage_is_the_users_fault_or_planned(harness: &Harness) {
    let garbage: [&[u8]; 5] = [b"", b"\xff\xfe\x00", b"{", b"[[[[[[[[", b"\0\0\0\0"];
    for name in ["Dockerfile", "package.json", "pyproject.toml", "requirements.txt", "index.html"] {
        for content in garbage {
            let tree = PlannerTree::new([(name, Bytes::from_static(content))]);
            if let Err(error) = harness.planner.plan(Arc::new(tree)).await {
                assert_is_users_fault_with_hint(&error);
            }
        }
    }
}

/// A file without an end is not read to its end: it is the user's fault, or the plan does without it.
pub async fn an_endless_file_is_bounded(harness: &Harness) {
    for name in ["Dockerfile", "package.json", "pyproject.toml", "requirements.txt", "index.html"] {
        let tree = PlannerTree::new([(name, "")]).with_endless(name);
        if let Err(error) = harness.planner.plan(Arc::new(tree)).await {
            assert_eq!(error.whose(), Fault::User, "{error:?}");
            assert_eq!(error.retryable(), Retry::Permanent, "{error:?}");
        }
    }
}

/// Many files cost no more reads than few.
pub async fn many_files_are_bounded(harness: &Harness) {
    let many = (0..20_000).map(|n| (format!("d{}/f{n}.py", n % 100), "import flask"));
    let roots = (0..2_000).map(|n| (format!("f{n}.py"), "import flask"));
    let deep = [("a/".repeat(500) + "package.json", "{}"), ("requirements.txt".to_owned(), "")];
    let tree = Arc::new(PlannerTree::new(many.chain(roots).chain(deep).collect::<MemoryFiles>()));
    if let Err(error) = harness.planner.plan(tree.clone()).await {
        assert_is_users_fault_with_hint(&error);
    }
    assert!(tree.reads() <= MAX_READS, "{} reads", tree.reads());
}

/// A tree that cannot be read is not the user's fault: its error comes out as it is.
pub async fn a_lost_tree_stays_its_own_error(harness: &Harness) {
    let error = harness.planner.plan(Arc::new(site().broken())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.is_transient(), "{error:?}");
}

/// The suite of [`Planner`]: the harness expression answers a future of a
/// [`planner::Harness`](crate::testing::planner::Harness).
#[macro_export]
macro_rules! conformance_planner {
    ($harness:expr) => {
        $crate::conformance_tests!(
            planner,
            $harness,
            [
                the_same_tree_gives_the_same_plan,
                a_plan_explains_itself_and_can_be_stored,
                a_dockerfile_in_the_tree_wins,
                an_empty_tree_is_the_users_fault,
                garbage_is_the_users_fault_or_planned,
                an_endless_file_is_bounded,
                many_files_are_bounded,
                a_lost_tree_stays_its_own_error,
            ]
        );
    };
}
