//! Reports as the programs print them, and hostile ones. The shapes of repquota follow quota-tools 4.06 (its heading is in the
//! program), those of xfs_quota and lfs published answers of xfsprogs 5 and Lustre 2.12 to 2.15.

use proptest::prelude::*;

use super::*;

const REPQUOTA: &str = "BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,BlockGrace,FileUsed,FileSoftLimit,FileHardLimit,FileGrace\n";

fn read(format: ReportFormat, text: &str) -> Parsed {
    parse(format, text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn shown_lines(parsed: &Parsed) -> Vec<(String, u64, u64)> {
    let line = |line: &Stored| {
        let name = line.username.as_ref().or(line.account.as_ref()).expect("a name").clone();
        (name, line.bytes_stored, line.file_count.unwrap_or(u64::MAX))
    };
    parsed.lines.iter().map(line).collect()
}

fn expected(lines: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    lines.iter().map(|(name, bytes, files)| ((*name).to_owned(), *bytes, *files)).collect()
}

#[test]
fn repquota_is_read_for_users_and_projects_over_several_file_systems() {
    let text = format!(
        "User,{REPQUOTA}root,ok,ok,2048,0,0,,4,0,0,\nalice,soft,ok,12,10,20,6days,7,0,0,\nUser,{REPQUOTA}bob,ok,ok,0,0,0,,1,0,0,\n"
    );
    let parsed = read(ReportFormat::RepquotaUsers, &text);
    assert_eq!(shown_lines(&parsed), expected(&[("root", 2 << 20, 4), ("alice", 12288, 7), ("bob", 0, 1)]));
    assert!(parsed.lines.iter().all(|line| line.account.is_none()));
    let text = format!("Project,{REPQUOTA}#0,ok,ok,732,0,0,,45,0,0,\nbio42,ok,ok,92,0,0,,23,0,0,\n");
    let parsed = read(ReportFormat::RepquotaProjects, &text);
    assert_eq!(shown_lines(&parsed), expected(&[("#0", 749_568, 45), ("bio42", 94208, 23)]));
    assert!(parsed.lines.iter().all(|line| line.username.is_none()));
    // Users are not projects, and readable sizes are not exact.
    for (format, text) in [
        (ReportFormat::RepquotaUsers, format!("Project,{REPQUOTA}")),
        (ReportFormat::RepquotaProjects, format!("User,{REPQUOTA}")),
        (ReportFormat::RepquotaUsers, format!("User,{}", REPQUOTA.replace("Block", "Space"))),
        (ReportFormat::RepquotaUsers, "alice,ok,ok,2,0,0,,17,0,0,\n".to_owned()),
    ] {
        let error = parse(format, text.as_bytes()).unwrap_err();
        assert!(matches!(error, ReportError::Heading { .. }), "{error}");
    }
}

#[test]
fn a_report_of_xfs_is_read_from_its_end_with_or_without_headings() {
    let rows = "#0                  12          0          0     00 [--------]          3          0          0     00 [--------]\n\
                bio42            81920      51200      81920     00  [6 days]         40         40         50     00 [--------]\n\
                a_name_longer_than_ten        932          0          0     00 [-none-]        274          0          0     00 [01:02:03]\n";
    let lines = [("#0", 12288, 3), ("bio42", 83_886_080, 40), ("a_name_longer_than_ten", 954_368, 274)];
    assert_eq!(shown_lines(&read(ReportFormat::XfsProjects, rows)), expected(&lines));
    let head = "Project quota on /scratch (/dev/sdb)\n                               Blocks                                          Inodes                     \n\
                Project ID       Used       Soft       Hard    Warn/Grace           Used       Soft       Hard    Warn/ Grace     \n\
                ---------- -------------------------------------------------- -------------------------------------------------- \n";
    let parsed = read(ReportFormat::XfsProjects, &format!("{head}{rows}\n"));
    assert_eq!((shown_lines(&parsed), parsed.rejected), (expected(&lines), 0));
    let users = read(ReportFormat::XfsUsers, rows);
    assert!(users.lines.iter().all(|line| line.account.is_none() && line.username.is_some()));
    let error = parse(ReportFormat::XfsUsers, format!("{head}{rows}").as_bytes()).unwrap_err();
    assert!(matches!(error, ReportError::Heading { .. }), "{error}");
    for bad in [
        "bio42 1.5G 0 0 00 [--------] 3 0 0 00 [--------]",
        "bio42 12 0 0 00 [--------]",
        "bio42 12 0 0 00 [--------] 3 0 0 00 [--------] 0 0 0 00 [--------]",
        "12 0 0 00 [--------] 3 0 0 00 [--------]",
        "bio42 12 0 00 [--------] 3 0 0 00 [--------]",
        "bio42 -12 0 0 00 [--------] 3 0 0 00 [--------]",
        "bio42 12 0 0 00 [$(id)] 3 0 0 00 [--------]",
        "bio42",
    ] {
        let error = parse(ReportFormat::XfsProjects, format!("{bad}\n").as_bytes()).unwrap_err();
        assert!(matches!(error, ReportError::Nothing { lines: 1, .. }), "{bad}: {error}");
    }
    // A name with blanks and numbers stays one name; whether it may be charged is decided elsewhere.
    let forged = "bio42 0 0 0 evil 12 0 0 00 [--------] 3 0 0 00 [--------]\n";
    assert_eq!(read(ReportFormat::XfsProjects, forged).lines[0].account.as_deref(), Some("bio42 0 0 0 evil"));
}

#[test]
fn answers_of_lfs_quota_are_read_one_after_the_other() {
    let text = "Disk quotas for usr alice (uid 1000):\n     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n\
                \x20       /lustre   1024*    1000    2000  6d23h    17*       10     100       -\nuid 1000 is using default file quota setting\n\
                Disk quotas for prj 1000 (pid 1000):\n      Filesystem  kbytes  bquota  blimit  bgrace   files  iquota  ilimit  igrace\n\
                /mnt/a-long-name-of-a-file-system\n                1225350212       0       0       -  714982       0       0       -\n\
                pid 1000 is using default block quota setting\n\
                Disk quotas for prj 1001 (pid 1001):\n     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n\
                /lustre [10200224]       0       0       -   17724       0       0       -\n\
                Some errors happened when getting quota info. Some devices may be not working or deactivated. The data in \"[]\" is inaccurate.\n\
                Disk quotas for grp bio42 (gid 7):\n     Filesystem    used   quota   limit   grace   files   quota   limit   grace\n\
                /lustre   15.4T     19T     20T       -  739564  1048576 1048576       -\n\
                Disk quotas for usr cut (uid 8):\n     Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace\n";
    let parsed = read(ReportFormat::Lustre, text);
    let lines = [("alice", 1 << 20, 17), ("1000", 1_225_350_212 * 1024, 714_982)];
    assert_eq!(shown_lines(&parsed), expected(&lines));
    assert_eq!(parsed.lines[1].account.as_deref(), Some("1000"));
    assert_eq!(parsed.rejected, 3, "{:?}", parsed.samples);
    for (sample, words) in parsed.samples.iter().zip(["did not answer", "without -h", "missing"]) {
        assert!(sample.contains(words), "{sample}");
    }
    let verbose = "Disk quotas for usr alice (uid 1000):\n Filesystem kbytes quota limit grace files quota limit grace\n\
                   /lustre 1024 0 0 - 17 0 0 -\nlustre-MDT0000_UUID\n 4 - 0 - 17 - 0 -\n";
    let parsed = read(ReportFormat::Lustre, verbose);
    assert_eq!((shown_lines(&parsed), parsed.rejected), (expected(&[("alice", 1 << 20, 17)]), 2));
}

#[test]
fn documented_lines_are_read_strictly() {
    let text = "account,username,bytes_stored,media_type,file_count\nbio42,alice,5,\"Tape, old\",\n\"bio42\",\"a\"\"b\",0,,3\n";
    let parsed = read(ReportFormat::Csv, text);
    let (first, second) = (&parsed.lines[0], &parsed.lines[1]);
    assert_eq!(
        (first.bytes_stored, first.media_type.as_deref(), first.file_count),
        (5, Some("Tape, old"), None)
    );
    assert_eq!(
        (second.username.as_deref(), second.bytes_stored, second.file_count),
        (Some("a\"b"), 0, Some(3))
    );
    let head = "username,bytes_stored\n";
    for bad in ["bob", "bob,", "bob,1K", "bob,-1", "bob,1,2", "bob,\"1", "bob,1\"", ",1", "bob, 1"] {
        let error = parse(ReportFormat::Csv, format!("{head}{bad}\n").as_bytes()).unwrap_err();
        assert!(matches!(error, ReportError::Nothing { lines: 1, .. }), "{bad}: {error}");
    }
    for bad in ["username,bytes\n", "bytes_stored\n", "username,bytes_stored,bytes_stored\n", "bob,5\n"] {
        let error = parse(ReportFormat::Csv, bad.as_bytes()).unwrap_err();
        assert!(matches!(error, ReportError::Heading { .. }), "{bad}: {error}");
    }
    let good = r#"{"username": "bob", "account": "bio42", "bytes_stored": 5, "media_type": "Tape"}"#;
    assert_eq!(read(ReportFormat::Json, &format!("{good}\n")).lines[0].bytes_stored, 5);
    for bad in [
        r#"{"username": "bob"}"#,
        r#"{"username": "bob", "bytes_stored": "5"}"#,
        r#"{"username": "bob", "bytes_stored": 5}x"#,
        r#"{"username": "bob", "bytes_stored": -1}"#,
        r#"{"username": "bob", "bytes_stored": 1.5}"#,
        r#"{"username": "bob", "bytes_stored": null}"#,
        r#"{"username": "bob", "bytes_stored": 1, "bytes": 1}"#,
        r#"{"bytes_stored": 1}"#,
        r#"{"account": "", "bytes_stored": 1}"#,
    ] {
        let error = parse(ReportFormat::Json, format!("{bad}\n").as_bytes()).unwrap_err();
        assert!(matches!(error, ReportError::Nothing { lines: 1, .. }), "{bad}: {error}");
    }
}

#[test]
fn a_hostile_name_costs_its_own_line_and_no_other() {
    let hostile = ["evil,ok,ok,0,0,0,,0,0,0,,ok,ok,9,0,0,,9,0,0,", "evil,1"];
    for name in hostile {
        let text = format!("User,{REPQUOTA}{name},ok,ok,2,0,0,,17,0,0,\nalice,ok,ok,1,0,0,,1,0,0,\n");
        let parsed = read(ReportFormat::RepquotaUsers, &text);
        assert_eq!((shown_lines(&parsed), parsed.rejected), (expected(&[("alice", 1024, 1)]), 1));
    }
    // Somebody forges a line of somebody else: neither counts, and both are shown.
    let text = format!(
        "User,{REPQUOTA}evil\nalice,ok,ok,0,0,0,,0,0,0,\n,ok,ok,2,0,0,,17,0,0,\nalice,ok,ok,1,0,0,,1,0,0,\nbob,ok,ok,1,0,0,,1,0,0,\n"
    );
    let parsed = read(ReportFormat::RepquotaUsers, &text);
    let names: Vec<String> = shown_lines(&parsed).into_iter().map(|(name, ..)| name).collect();
    assert!(!names.contains(&"alice".to_owned()), "{names:?}");
    assert_eq!(parsed.rejected, 3);
    // Cut in the middle of a number.
    let text = format!("User,{REPQUOTA}bob,ok,ok,1,0,0,,1,0,0,\nalice,ok,ok,10");
    let parsed = read(ReportFormat::RepquotaUsers, &text);
    assert_eq!((parsed.lines.len(), parsed.rejected), (1, 1));
    for empty in ["", "\n\n", "  "] {
        assert_eq!(parse(ReportFormat::XfsProjects, empty.as_bytes()), Err(ReportError::Empty));
    }
}

const FORMATS: [ReportFormat; 7] = [
    ReportFormat::RepquotaUsers,
    ReportFormat::RepquotaProjects,
    ReportFormat::XfsUsers,
    ReportFormat::XfsProjects,
    ReportFormat::Lustre,
    ReportFormat::Csv,
    ReportFormat::Json,
];

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0..FORMATS.len()) {
        let _ = parse(FORMATS[which], &bytes);
    }

    /// A damaged number is the same number (a blank more in front), or the line is gone and counted: never another one.
    #[test]
    fn a_damaged_line_never_becomes_a_zero(at in 0usize..200, with in "\\PC") {
        let row = "alice            81920          0          0     00 [--------]         40          0          0     00 [--------]\n";
        let Some(old) = row.chars().nth(at).filter(|old| *old != '\n' && !old.is_ascii_digit()) else { return Ok(()) };
        let digit = with.chars().any(|c| c.is_ascii_digit());
        prop_assume!(!digit && old != with.chars().next().expect("one"));
        let damaged: String = row.chars().enumerate().map(|(n, c)| if n == at { with.clone() } else { c.to_string() }).collect();
        match parse(ReportFormat::XfsUsers, damaged.as_bytes()) {
            Ok(parsed) => prop_assert!(parsed.lines.iter().all(|line| line.bytes_stored == 83_886_080 && line.file_count == Some(40)), "{parsed:?}"),
            Err(error) => prop_assert!(!matches!(error, ReportError::Empty), "{error}"),
        }
    }
}
