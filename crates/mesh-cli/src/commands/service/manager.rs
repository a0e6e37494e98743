//! What the service manager says of a daemon.

use std::process::Command;

use super::{
    facts::output,
    layout::{Layout, Manager},
};

/// A service as its manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Whether the manager knows it.
    pub(super) is_loaded: bool,
    /// Whether it starts with the machine.
    pub(super) is_enabled: bool,
    /// Whether it runs, or is being started.
    pub(super) is_running: bool,
    /// Its main process.
    pub(super) pid: Option<u32>,
    /// How it ended last, in words; `None`: it never did.
    pub(super) last_exit: Option<String>,
}

/// Asks the service manager. What cannot be asked is not loaded.
pub(super) fn look(layout: &Layout) -> State {
    match layout.manager {
        Manager::Systemd => {
            const PROPERTIES: &str =
                "LoadState,ActiveState,UnitFileState,MainPID,ExecMainCode,ExecMainStatus";
            let mut show = Command::new("systemctl");
            show.args(["show", "--property", PROPERTIES, layout.service]);
            output(&mut show)
                .map(|text| systemctl_show(&text))
                .unwrap_or_default()
        }
        Manager::Launchd => {
            let target = format!("system/{}", layout.service);
            let printed = output(Command::new("launchctl").args(["print", &target]));
            let mut state = printed.as_deref().map(launchctl_print).unwrap_or_default();
            let disabled = output(Command::new("launchctl").args(["print-disabled", "system"]));
            state.is_enabled = layout.parts[0].path.exists()
                && !disabled.is_some_and(|text| is_disabled(&text, layout.service));
            state
        }
    }
}

/// Reads `systemctl show`: `Key=value` a line.
fn systemctl_show(text: &str) -> State {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
    };
    // CLD_EXITED, CLD_KILLED and CLD_DUMPED of wait(2); 0 while it never ended.
    let how = match value("ExecMainCode") {
        "1" => Some("exit code"),
        "2" | "3" => Some("signal"),
        _ => None,
    };
    State {
        is_loaded: value("LoadState") == "loaded",
        is_enabled: matches!(
            value("UnitFileState"),
            "enabled" | "enabled-runtime" | "static"
        ),
        is_running: matches!(value("ActiveState"), "active" | "activating" | "reloading"),
        pid: value("MainPID").parse().ok().filter(|pid| *pid != 0),
        last_exit: how.map(|how| format!("{how} {}", value("ExecMainStatus"))),
    }
}

/// Reads `launchctl print system/LABEL`, which is made for people: only lines at the first level that say
/// `key = value` count, and one that is not there is not known.
fn launchctl_print(text: &str) -> State {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let line = line.strip_prefix('\t')?;
            line.strip_prefix(key)?.strip_prefix(" = ")
        })
    };
    let last_exit = value("last exit code").filter(|code| *code != "(never exited)");
    let last_signal = value("last terminating signal");
    State {
        is_loaded: true,
        is_enabled: false,
        is_running: value("state") == Some("running"),
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        last_exit: last_signal
            .map(|signal| format!("signal {signal}"))
            .or_else(|| last_exit.map(|code| format!("exit code {code}"))),
    }
}

/// Reads `launchctl print-disabled system`: `"label" => disabled`, or `=> true` before macOS 13.
fn is_disabled(text: &str, label: &str) -> bool {
    let quoted = format!("\"{label}\" => ");
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(&quoted))
        .any(|value| matches!(value, "disabled" | "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_is_read() {
        let text = "MainPID=4711\nExecMainCode=0\nExecMainStatus=0\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n";
        let state = State {
            is_loaded: true,
            is_enabled: true,
            is_running: true,
            pid: Some(4711),
            last_exit: None,
        };
        assert_eq!(systemctl_show(text), state);
        let text = "MainPID=0\nExecMainCode=1\nExecMainStatus=2\nLoadState=loaded\nActiveState=failed\nUnitFileState=disabled\n";
        let state = State {
            is_loaded: true,
            last_exit: Some("exit code 2".to_owned()),
            ..State::default()
        };
        assert_eq!(systemctl_show(text), state);
        let text = "MainPID=0\nExecMainCode=0\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n";
        assert_eq!(systemctl_show(text), State::default());
    }

    #[test]
    fn what_launchd_says_is_read() {
        let text = "system/org.mesh.agent = {\n\tactive count = 1\n\tpath = /Library/LaunchDaemons/org.mesh.agent.plist\n\tstate = running\n\n\tprogram = /usr/local/libexec/mesh\n\tdefault environment = {\n\t\tstate = none\n\t}\n\truns = 3\n\tpid = 512\n\tlast exit code = 1\n}\n";
        let state = State {
            is_loaded: true,
            is_enabled: false,
            is_running: true,
            pid: Some(512),
            last_exit: Some("exit code 1".to_owned()),
        };
        assert_eq!(launchctl_print(text), state);
        let text = "system/org.mesh.agent = {\n\tstate = spawn scheduled\n\tlast exit code = (never exited)\n}\n";
        let state = State {
            is_loaded: true,
            ..State::default()
        };
        assert_eq!(launchctl_print(text), state);
    }

    #[test]
    fn a_disabled_job_is_told_from_an_enabled_one() {
        let text = "disabled services = {\n\t\t\"org.mesh.agent\" => disabled\n\t\t\"org.mesh.controller\" => enabled\n\t}\n";
        assert!(is_disabled(text, "org.mesh.agent"));
        assert!(!is_disabled(text, "org.mesh.controller"));
        assert!(!is_disabled(text, "org.mesh"));
        assert!(is_disabled(
            "\t\"org.mesh.agent\" => true\n",
            "org.mesh.agent"
        ));
    }
}
