//! What holds of every accepted address of a repository, whatever was typed.

use paas_core::{EgressPolicy, GitUrl, Secret};
use proptest::prelude::*;

fn urls() -> impl Strategy<Value = String> {
    let scheme = proptest::sample::select(vec![
        "https://",
        "http://",
        "https:///",
        "HTTPS://",
        "ssh://",
        "file://",
        "git@",
        "",
        "https:/",
        "https:",
    ]);
    let authority = prop_oneof![
        "[a-zA-Z0-9.-]{0,20}",
        "[a-z]{1,5}:[a-z0-9]{0,5}@[a-z.]{1,10}",
        "[a-z.]{1,9}:[0-9]{0,6}",
        "\\[[0-9a-f:.]{0,20}\\]",
        any::<String>(),
    ];
    let path = prop_oneof![
        "(/[a-zA-Z0-9._~@+:-]{0,8}){0,4}",
        "(/(%[0-9a-fA-F]{2}|[a-z.]){0,6}){0,3}",
        any::<String>()
    ];
    (scheme, authority, path).prop_map(|(scheme, authority, path)| format!("{scheme}{authority}{path}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = text.parse::<GitUrl>();
    }

    #[test]
    fn what_is_accepted_is_plain(text in urls()) {
        let Ok(accepted) = text.parse::<GitUrl>() else { return Ok(()) };
        let url = accepted.to_url();
        prop_assert!(matches!(url.scheme(), "https" | "http"));
        prop_assert_eq!((url.username(), url.password()), ("", None));
        prop_assert_eq!((url.query(), url.fragment()), (None, None));
        prop_assert!(url.host_str().is_some_and(|host| !host.is_empty() && !host.starts_with('-')));
        prop_assert!(accepted.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
        prop_assert!(!url.path_segments().unwrap().any(|part| part == ".." || part == "."));
        prop_assert!(accepted.as_str().len() <= GitUrl::MAX_LENGTH);
        // It is what everybody will parse again: a record, a redirect check, the fetching library.
        prop_assert_eq!(&accepted.as_str().parse::<GitUrl>().unwrap(), &accepted);
        let json = serde_json::to_string(&accepted).unwrap();
        prop_assert_eq!(serde_json::from_str::<GitUrl>(&json).unwrap(), accepted);
    }

    #[test]
    fn a_password_is_refused_and_never_repeated(user in "[a-z]{1,8}", password in "[a-zA-Z0-9]{12,30}") {
        let error = format!("https://{user}:{password}@example.com/r.git").parse::<GitUrl>().unwrap_err();
        let printed = format!("{error} {error:?} {:?}", error.hinted());
        prop_assert!(!printed.contains(&password), "{}", printed);
    }

    #[test]
    fn no_spelling_of_an_address_passes_for_a_name(text in urls()) {
        let Ok(accepted) = text.parse::<GitUrl>() else { return Ok(()) };
        let url = accepted.to_url();
        if EgressPolicy::default().check_url(&accepted).is_ok()
            && let Some(url::Host::Domain(name)) = url.host()
        {
            // What a resolver would take for an address without asking anybody.
            prop_assert!(name.parse::<std::net::IpAddr>().is_err(), "{}", name);
        }
    }
}

#[test]
fn further_slashes_hide_no_password() {
    for text in [
        "https:///user:hunter2@example.com/r",
        "https:////user:hunter2@example.com/r",
        "https:///example.com/r",
    ] {
        let error = text.parse::<GitUrl>().expect_err(text);
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_token_in_a_repository_is_not_printed() {
    let repository = paas_core::Repository {
        org: paas_core::OrgId::default_org(),
        url: "https://example.com/r.git".parse().unwrap(),
        token: Some(Secret::from("hunter2")),
    };
    assert!(!format!("{repository:?}").contains("hunter2"));
}
