//! What the builder promises beyond its trait, on a real Docker engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod shared;

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use paas_core::{Dockerfile, Fault, ImageBuilder, Kind, OrgId, Selector};
use shared::{BASE, Bench, Tree, client, ids, is_running, request};

/// The lines that a step wrote between two marks.
fn listed(bench: &Bench) -> Vec<String> {
    let lines = bench.log.lines();
    let begin = lines.iter().position(|line| line == "begin").unwrap();
    let end = lines.iter().position(|line| line == "end").unwrap();
    lines[begin + 1..end].to_vec()
}

/// The files of the tests of `.dockerignore`.
const FILES: [&str; 8] = [
    "a.txt",
    "foo",
    "keep.md",
    "logs/x.log",
    "node_modules/m.js",
    "sub/a.txt",
    "sub/foo",
    "sub/node_modules/m.js",
];

/// Patterns of `.dockerignore`, and which of the files they leave out: what the engine's command line answers.
const IGNORE_TABLE: [(&str, &str); 35] = [
    ("", ""),
    ("# foo\n\n", ""),
    ("foo", "foo"),
    ("**/foo", "foo sub/foo"),
    ("/node_modules/", "node_modules/m.js"),
    ("**/node_modules", "node_modules/m.js sub/node_modules/m.js"),
    ("*.txt", "a.txt"),
    ("*/*.txt", "sub/a.txt"),
    ("./sub//foo/.", "sub/foo"),
    ("*\n!keep.md", "a.txt foo logs/x.log node_modules/m.js sub/a.txt sub/foo sub/node_modules/m.js"),
    ("logs\n!logs/x.log", ""),
    ("!sub\nsub/foo\n", "sub/foo"),
    ("**/*.log\n!logs", ""),
    ("logs\n!**/x.log", "logs/x.log"),
    ("!logs\n**/*.log", "logs/x.log"),
    ("*\n!sub\nsub/a.txt", "a.txt foo keep.md logs/x.log node_modules/m.js sub/a.txt"),
    ("*\n!sub/foo", "a.txt keep.md foo logs/x.log node_modules/m.js sub/a.txt sub/node_modules/m.js"),
    ("**\n!**/*.md", "a.txt foo logs/x.log node_modules/m.js sub/a.txt sub/foo sub/node_modules/m.js"),
    ("sub/*\n!sub/node_modules", "sub/a.txt sub/foo"),
    ("sub\n!sub/node_modules\nsub/node_modules/m.js", "sub/a.txt sub/foo sub/node_modules/m.js"),
    ("**/node_modules/**\n!**/m.js", ""),
    ("*.t?t", "a.txt"),
    ("[a-f]*", "a.txt foo"),
    ("[^a-f]*", "keep.md logs/x.log node_modules/m.js sub/a.txt sub/foo sub/node_modules/m.js"),
    ("sub/**", "sub/a.txt sub/foo sub/node_modules/m.js"),
    ("no*/**", "node_modules/m.js"),
    ("../foo", ""),
    ("sub/../foo", "foo"),
    ("/", ""),
    ("*.*\n!*.md", "a.txt"),
    ("su*b/f**o", ""),
    ("s**o", ""),
    ("sub**", "sub/a.txt sub/foo sub/node_modules/m.js"),
    ("{a,b}.txt", ""),
    ("**/sub/**/m.js", "sub/node_modules/m.js"),
];

#[tokio::test]
async fn dockerignore_keeps_what_the_engine_would_keep() {
    for (pattern, out) in IGNORE_TABLE {
        let out: Vec<&str> = out.split(' ').collect();
        let left: Vec<&str> = FILES.into_iter().filter(|path| !out.contains(path)).collect();
        let bench = Bench::new().await;
        let mut files: Vec<(&str, &str)> = FILES.map(|path| (path, "x")).to_vec();
        let ignore = format!("{pattern}\n.dockerignore\n");
        files.push((".dockerignore", &ignore));
        // Another text each time: a cached step writes nothing.
        let number = shared::random();
        let dockerfile = format!(
            "FROM {BASE}\nCOPY . /context\nRUN cd /context && echo {number} && echo begin && find . -type f | grep -v paas | sed 's#^./##' | sort && echo end\n"
        );
        bench.build(&files, &dockerfile).await.unwrap();
        assert_eq!(listed(&bench), left, "{pattern:?}");
        bench.clean().await;
    }
}

#[tokio::test]
async fn a_dockerignore_that_the_engine_refuses_is_the_users() {
    let bench = Bench::new().await;
    for pattern in ["!", "[", "a[", "[]a]", "\\", &"**/x*\n".repeat(2000)] {
        let error = bench.build(&[(".dockerignore", pattern)], &format!("FROM {BASE}\n")).await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (Kind::Invalid, Fault::User), "{pattern}: {error:?}");
    }
}

#[tokio::test]
async fn a_secret_is_in_the_step_and_nowhere_in_the_image() {
    let secret = format!("secret-{:016x}", shared::random());
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("ca.pem");
    std::fs::write(&path, &secret).unwrap();
    let mut bench = Bench::new().await;
    bench.builder = bench.builder.clone().with_ca_bundle(Some(path));
    // Another text each time: a cached step writes nothing.
    let number = shared::random();
    let dockerfile = format!(
        "FROM {BASE}\nRUN --mount=type=secret,id=ca,target=/run/ca,required=true wc -c < /run/ca > /size\nRUN echo {number} size $(cat /size)\n"
    );
    let image = bench.build(&[("a", "b")], &dockerfile).await.unwrap();
    assert!(
        bench.log.lines().contains(&format!("{number} size {}", secret.len())),
        "{:?}",
        bench.log.lines()
    );
    let history = format!("{:?}", client().await.image_history(&image.digest).await.unwrap());
    let inspected = format!("{:?}", client().await.inspect_image(&image.digest).await.unwrap());
    assert!(history.contains("wc -c"));
    assert!(!history.contains(&secret) && !inspected.contains(&secret));
    let mut export = client().await.export_image(&image.digest).boxed();
    let mut bytes = Vec::new();
    while let Some(chunk) = export.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    bench.clean().await;
}

#[tokio::test]
async fn a_dropped_build_ends_within_seconds() {
    let bench = Bench::new().await;
    let seconds = (1_000_000 + shared::random() % 1_000_000_000).to_string();
    let dockerfile = format!("FROM {BASE}\nRUN sleep {seconds}\n");
    let build = tokio::spawn({
        let (builder, context) = (bench.builder.clone(), bench.context.clone());
        let request = request(&bench.org, &bench.app, Tree::of(&[]), &dockerfile);
        async move {
            let key = builder.key(&context, &request).await.unwrap();
            builder.build(&context, &request, &key).await
        }
    });
    let pause = || bench.context.sleep("test.wait", Duration::from_millis(20));
    while !is_running(&seconds) {
        pause().await.unwrap();
    }
    build.abort();
    let budget = bench.context.with_budget(Duration::from_secs(5));
    while is_running(&seconds) {
        budget.sleep("test.wait", Duration::from_millis(20)).await.expect("it ends within five seconds");
    }
}

#[tokio::test]
async fn silence_is_limited() {
    let bench = Bench::new().await;
    let seconds = (1_000_000 + shared::random() % 1_000_000_000).to_string();
    let dockerfile = format!("FROM {BASE}\nRUN echo first && sleep {seconds}\n");
    let mut request = request(&bench.org, &bench.app, Tree::of(&[]), &dockerfile);
    request.limits.silence = Duration::from_secs(2);
    let error = bench.run(&request).await.unwrap_err();
    assert!(!is_running(&seconds));
    assert_eq!((error.kind(), error.reason()), (Kind::BuildFailed, Some("build_limit")), "{error:?}");
    assert_eq!(error.evidence_lines(), ["first"]);
}

#[tokio::test]
async fn endless_output_is_limited() {
    let bench = Bench::new().await;
    let text = format!("{:016x}", shared::random());
    let dockerfile = format!("FROM {BASE}\nRUN yes {text}\n");
    let mut request = request(&bench.org, &bench.app, Tree::of(&[]), &dockerfile);
    request.limits.total = Duration::from_secs(5);
    request.limits.log_bytes = 10_000;
    let error = bench.run(&request).await.unwrap_err();
    assert!(!is_running(&text));
    assert_eq!((error.kind(), error.reason()), (Kind::BuildFailed, Some("build_limit")), "{error:?}");
    let lines = bench.log.lines();
    assert!(lines.iter().map(String::len).sum::<usize>() < 11_000, "{}", lines.len());
    assert!(lines.contains(&text) && !error.evidence_lines().is_empty(), "{error:?}");
}

#[tokio::test]
async fn a_dockerfile_that_would_grow_without_end_is_the_users() {
    let bench = Bench::new().await;
    let mut doubling = "ARG A0=xxxxxxxx\n".to_owned();
    for n in 1..60 {
        doubling += &format!("ARG A{n}=$A{}$A{}\n", n - 1, n - 1);
    }
    for dockerfile in [
        format!("{doubling}FROM $A59\n"),
        format!("ARG X={}\nFROM $X\n", "$A".repeat(50_000)),
        format!("FROM {BASE}\n{}RUN --network=host x\n", "ONBUILD ".repeat(50_000)),
    ] {
        let error = bench.build(&[], &dockerfile).await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (Kind::Invalid, Fault::User));
    }
}

#[tokio::test]
async fn the_log_is_bounded_and_says_so() {
    let bench = Bench::new().await;
    let dockerfile = format!("FROM {BASE}\nRUN seq 1 20000\nRUN echo the last step\n");
    let mut request = request(&bench.org, &bench.app, Tree::of(&[]), &dockerfile);
    // A cached step writes nothing.
    request.no_cache = true;
    request.limits.log_bytes = 1000;
    bench.run(&request).await.unwrap();
    let lines = bench.log.lines();
    assert!(lines.iter().map(String::len).sum::<usize>() < 1500, "{}", lines.len());
    assert!(lines.last().unwrap().contains("bytes of output were not kept"), "{lines:?}");
    bench.clean().await;
}

#[tokio::test]
async fn steps_are_named_and_say_when_they_were_cached() {
    let bench = Bench::new().await;
    let text = format!("{:016x}", shared::random());
    let dockerfile = format!("FROM {BASE}\nRUN echo {text}\nEXPOSE 4711\n");
    let image = bench.build(&[], &dockerfile).await.unwrap();
    assert_eq!(image.port.unwrap().number(), 4711);
    let lines = bench.log.lines();
    assert!(lines.contains(&format!("[2/2] RUN echo {text}")), "{lines:?}");
    assert!(lines.contains(&text), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("[2/2] done in ")), "{lines:?}");
    bench.clean().await;
    bench.build(&[], &dockerfile).await.unwrap();
    assert!(
        bench.log.lines().contains(&format!("[2/2] RUN echo {text} (cached)")),
        "{:?}",
        bench.log.lines()
    );
    bench.clean().await;
}

#[tokio::test]
async fn another_orgs_image_cannot_be_named() {
    let (theirs, mine) = (Bench::new().await, Bench::new().await);
    let image =
        theirs.build(&[("private", "x")], &format!("FROM {BASE}\nCOPY private /private\n")).await.unwrap();
    let tags = client().await.inspect_image(&image.digest).await.unwrap().repo_tags.unwrap();
    let tag = &tags[0];
    assert!(tag.contains(theirs.org.suffix()));
    let dockerfiles = [
        format!("FROM {tag}\n"),
        format!("ARG A={tag}\nFROM ${{A}}\n"),
        format!("FROM {BASE}\nCOPY --from={tag} /private /private\n"),
        format!("FROM {BASE}\nRUN --mount=type=bind,from={tag},target=/x cat /x/private\n"),
        format!("FROM {BASE}\nRUN --mount=type=bind,From={tag},target=/x cat /x/private\n"),
        format!("FROM {BASE}\nRUN --mount=target=\"/x y\",from={tag} cat '/x y/private'\n"),
        format!("# a comment\n# escape=`\nFROM {BASE}\nCOPY \\\n --from={tag} /private /private\n"),
    ];
    for dockerfile in dockerfiles {
        let error = mine.build(&[], &dockerfile).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.reason()),
            (Kind::BuildFailed, Some("dockerfile_refused")),
            "{error:?}"
        );
    }
    // Their own they may.
    theirs.build(&[("a", "b")], &format!("FROM {tag}\nRUN cat /private\n")).await.unwrap();
    theirs.clean().await;
}

#[tokio::test]
async fn cache_mounts_are_kept_apart_by_org() {
    let (one, other) = (Bench::new().await, Bench::new().await);
    let id = format!("{:016x}", shared::random());
    let mount = |id: &str| format!("RUN --mount=type=cache,id={id},target=/cache");
    let write = format!("FROM {BASE}\n{} echo mine > /cache/file\n", mount(&id));
    one.build(&[], &write).await.unwrap();
    let read = |id: &str, run: u64| {
        format!("FROM {BASE}\n{} echo {run} && echo begin && ls /cache && echo end\n", mount(id))
    };
    one.build(&[], &read(&id, 1)).await.unwrap();
    assert_eq!(listed(&one), ["file"]);
    // By the same id, and by one that climbs into the other's.
    let climbing = format!("../{}/{id}", one.org.suffix());
    for id in [&id, &climbing] {
        other.build(&[], &read(id, 2)).await.unwrap();
        assert_eq!(listed(&other), Vec::<String>::new(), "{id}");
    }
    one.clean().await;
    other.clean().await;
}

#[tokio::test]
async fn a_registry_out_of_reach_is_upstreams_fault_and_a_bad_file_the_users() {
    let bench = Bench::new().await;
    let error = bench.build(&[], "FROM 127.0.0.1:1/no/such:image\n").await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream), "{error:?}");
    assert!(error.is_transient() && error.hinted().is_some());
    for dockerfile in [
        "FRO x\n",
        &format!("FROM {BASE}\nCOPY missing /x\n"),
        &format!("FROM {BASE}\nRUN --network=host ls\n"),
    ] {
        let error = bench.build(&[], dockerfile).await.unwrap_err();
        assert_eq!(error.whose(), Fault::User, "{error:?}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn files_of_the_plan_are_in_the_context_and_win() {
    let bench = Bench::new().await;
    let text = format!("FROM {BASE}\nCOPY . /c\nRUN echo begin && cat /c/conf/own /c/file && echo end\n");
    let mut request = request(&bench.org, &bench.app, Tree::of(&[("file", "theirs\n")]), &text);
    let files = [("conf/own".to_owned(), "own\n".to_owned()), ("file".to_owned(), "ours\n".to_owned())];
    request.plan.dockerfile = Dockerfile::Generated { text, files: files.into() };
    // A cached step writes nothing.
    request.no_cache = true;
    bench.run(&request).await.unwrap();
    assert_eq!(listed(&bench), ["own", "ours"]);
    bench.clean().await;
}

#[tokio::test]
async fn an_image_that_is_not_ours_is_never_removed() {
    let bench = Bench::new().await;
    let id = client().await.inspect_image(BASE).await.unwrap().id.unwrap();
    bench.builder.remove(&bench.context, &id).await.unwrap();
    assert_eq!(client().await.inspect_image(BASE).await.unwrap().id.unwrap(), id);
    let nobody = OrgId::generate(&ids());
    assert_eq!(bench.builder.list(&bench.context, &Selector::of_app(&nobody, &bench.app)).await.unwrap(), []);
}
