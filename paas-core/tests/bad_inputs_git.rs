//! What users type where a git URL, a ref or a directory is asked for: refused before anything is sent.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use paas_core::{CommitId, EgressPolicy, GitRef, GitUrl, Kind, RootDirectory};
use proptest::prelude::*;

#[track_caller]
fn refused<T: std::str::FromStr<Err = paas_core::Error> + std::fmt::Debug>(text: &str) -> paas_core::Error {
    let error = text.parse::<T>().expect_err(text);
    assert_eq!(error.kind(), Kind::Invalid, "{text}");
    error
}

#[test]
fn urls_that_a_shell_or_git_would_run_are_refused() {
    let texts = [
        "https://h/r.git;id",
        "https://h/`id`",
        "https://h/$(id)",
        "--upload-pack=id",
        "https://h/r --upload-pack=id",
        "ext::sh -c id",
        "file:///etc",
        "/srv/x",
        "../x",
        "ssh://-oProxyCommand=id/x",
        "git@h:r.git",
        "git://h/r.git",
        "ftp://h/r.git",
        "https://h/r\r\nHost: x",
        "https://h/r\n",
        "https://h\\@evil/r",
        "https://h/a\\b",
        "https://h/../r",
        "https://h/%2e%2e/r",
        "https://h/a%2fb",
        "https://h/a%0d%0ab",
        "https://h/a%00",
        "https://h/a%",
        "https://h/a%zz",
        "https://h/r?x=1",
        "https://h/r#x",
        "https://h/'r'",
        "https://h/r|id",
        "https://h/r&id",
        "https://h/r<x>",
        "https://h",
        "https://h/",
        "https:///r",
        "https://./r",
        "HTTPS://h/r",
        "https:h/r",
        "",
        " https://h/r",
    ];
    for text in texts {
        refused::<GitUrl>(text);
    }
    refused::<GitUrl>(&format!("https://h/{}", "r".repeat(GitUrl::MAX_LENGTH)));
}

#[test]
fn a_url_with_credentials_is_refused_without_an_echo() {
    for text in ["https://user:tok3n@h/r", "https://tok3n@h/r", "https://:tok3n@h/r"] {
        let error = refused::<GitUrl>(text);
        assert!(!format!("{error:?} {error} {:?}", error.hinted()).contains("tok3n"));
    }
}

#[test]
fn urls_of_the_usual_hosts_are_accepted() {
    for text in [
        "https://github.com/owner/repository.git",
        "https://gitlab.com/group/sub-group/project",
        "https://git.example:8443/~user/repo_1.git",
        "http://127.0.0.1:3000/app.git",
        "https://h/with%20space.git",
    ] {
        assert_eq!(text.parse::<GitUrl>().expect(text).as_str(), text);
    }
}

#[test]
fn private_addresses_are_denied_however_they_are_written() {
    let policy = EgressPolicy::default();
    for text in [
        "https://169.254.169.254/latest",
        "https://[::ffff:127.0.0.1]/r",
        "https://[::127.0.0.1]/r",
        "https://[64:ff9b::7f00:1]/r",
        "https://[fe80::1]/r",
        "https://2130706433/r",
        "https://0x7f000001/r",
        "https://0177.0.0.1/r",
        "https://127.1/r",
        "https://10.1.2.3/r",
        "https://172.31.0.1/r",
        "https://192.168.0.1/r",
        "https://100.64.0.1/r",
        "https://0.0.0.0/r",
        "https://localhost/r",
        "https://localhost./r",
        "https://LOCALHOST/r",
        "https://a.localhost/r",
        "https://metadata.google.internal/r",
    ] {
        let error = text.parse::<GitUrl>().and_then(|url| policy.check_url(&url)).expect_err(text);
        assert!(matches!(error.kind(), Kind::PermissionDenied | Kind::Invalid), "{text}: {error:?}");
        if error.kind() == Kind::PermissionDenied {
            assert_eq!(error.reason(), Some("egress_denied"), "{text}");
        }
    }
    let public: GitUrl = "https://github.com/a/b".parse().unwrap();
    policy.check_url(&public).expect("a public host");
}

#[test]
fn plain_http_needs_the_operators_word() {
    let url: GitUrl = "http://git.lan/r".parse().unwrap();
    let error = EgressPolicy::default().check_url(&url).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    EgressPolicy::default().allowing("git.lan").check_url(&url).expect("the operator allowed it");
    let other_port = EgressPolicy::default().allowing("git.lan:3000");
    other_port.check_url(&url).expect_err("another port was allowed");
}

#[test]
fn refs_that_git_or_a_shell_would_misread_are_refused() {
    for text in [
        "",
        "-x",
        "--upload-pack=id",
        "a;b",
        "a..b",
        "@{",
        "a@{1}",
        "@",
        "a\0b",
        "a b",
        "a\nb",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[b",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.",
        "a.lock",
        "a/b.lock/c",
        "$(id)",
        "`id`",
        "a|b",
        "a&b",
        "a'b",
        "a\"b",
        "a<b",
        "a/-b",
    ] {
        refused::<GitRef>(text);
    }
    refused::<GitRef>(&"a".repeat(256));
    for text in ["main", "feature/one", "v1.2.3", "release-2026", "fix_#12", "größe"] {
        text.parse::<GitRef>().expect(text);
    }
}

#[test]
fn root_directories_that_leave_the_repository_are_refused() {
    for text in [
        "../",
        "..",
        "/",
        "/etc",
        "a/../../b",
        "a/..",
        "%2e%2e",
        "a/%2e%2e/b",
        "..\\a",
        "a\\..\\b",
        "a/./b",
        "a//b",
        ".git",
        "a/.GIT/b",
        "a\0b",
        "a\nb",
        "C:\\x",
        "a:b",
    ] {
        refused::<RootDirectory>(text);
    }
    for (text, expected) in [("", ""), (".", ""), ("./a", "a"), ("apps/web/", "apps/web"), ("a b", "a b")] {
        assert_eq!(text.parse::<RootDirectory>().expect(text).as_str(), expected);
    }
}

#[test]
fn commits_are_whole_ids() {
    for text in ["", "abc1234", "HEAD", &"g".repeat(40), &"A".repeat(40), &"a".repeat(41)] {
        refused::<CommitId>(text);
    }
}

proptest! {
    /// Whatever is accepted is one line, harmless to a shell, and reads back as itself.
    #[test]
    fn accepted_urls_are_plain(text in "(https?://)?[ -~\\n\\\\]{0,40}") {
        if let Ok(url) = text.parse::<GitUrl>() {
            let forbidden = b";`$\\\"'<>|&(){}#?";
            let is_plain = |byte: u8| byte.is_ascii_graphic() && !forbidden.contains(&byte);
            prop_assert!(url.as_str().bytes().all(is_plain));
            prop_assert!(url.to_url().username().is_empty() && url.to_url().password().is_none());
            prop_assert_eq!(url.as_str().parse::<GitUrl>().unwrap(), url);
        }
    }

    #[test]
    fn accepted_directories_stay_inside(text in "[a-z./\\\\%]{0,20}") {
        if let Ok(root) = text.parse::<RootDirectory>() {
            prop_assert!(!root.as_str().starts_with('/'));
            prop_assert!(root.as_str().split('/').all(|part| part != ".." && part != "."));
        }
    }

    #[test]
    fn accepted_refs_are_no_options(text in "\\PC{0,20}") {
        if let Ok(name) = text.parse::<GitRef>() {
            prop_assert!(!name.as_str().starts_with('-') && !name.as_str().contains(".."));
        }
    }
}
