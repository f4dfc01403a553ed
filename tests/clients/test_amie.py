"""The public AMIE client against the emulated AMIE Usage API.

Needs `amieclient`: 0.4.0 is the newest that installs on Python 3.11 (0.5 and later want Python below 3.10). It pins an
old python-dateutil that waldur-api-client refuses, so it lives in an environment of its own.

Broken in amieclient 0.4.0, and therefore checked on the wire:
- `clear_failed_records` fails before it sends anything (its URL template has no such argument).
- `StorageUsageRecord.as_dict` and `.from_dict` read members that the class does not have.
- `send` of more than 768 KiB takes the length of an object that has none, and sends nothing.
- `get_failed_records` finds records only under `ValidationFailedRecords`; under `FailedRecords` it sees none.
- A compute record without a parent is sent with `ParentRecordID: [null]`.
"""

import datetime
import json
import os
import pathlib
import subprocess
import tempfile

from amieclient.client import UsageClient
from amieclient.usage import AdjustmentUsageRecord, ComputeUsageRecord, StorageUsageRecord, UsageResponseError

from emulated import run, serve

ROOT = "/amie/api/v1/"
KEYS = {"XA-API-KEY": "key", "XA-SITE": "SITE"}
RESOURCE = "cluster.site.org"

SEED = {
    "clock": {"fixed": "2026-11-22T10:00:00Z"},
    "amie": {
        "settings": {"failed_list": "ValidationFailedRecords"},
        "sites": [{"name": "SITE", "api_key": "key", "resources": [RESOURCE]}],
        "projects": [{"local_project_id": "bio42", "users": ["ann"]}],
    },
}


def seeded(**settings):
    seed = json.loads(json.dumps(SEED))
    seed["amie"]["settings"].update(settings)
    return seed


def client(server, key="key"):
    return UsageClient(site_name="SITE", api_key=key, usage_url=server.url + ROOT)


def wire(server, method, path, body=None):
    status, _, text = server.call(method, ROOT + path, body, KEYS)
    return status, json.loads(text)


def compute(record_id, charge="1.5", **changes):
    fields = {
        "username": "ann", "local_project_id": "bio42", "local_record_id": record_id, "resource": RESOURCE,
        "submit_time": "2026-11-22T08:00:00+00:00", "start_time": "2026-11-22T08:05:00+00:00",
        "end_time": "2026-11-22T09:05:00+00:00", "charge": charge, "node_count": "1", "cpu_core_count": "4",
        "local_reference": "ledger-" + record_id,
    }
    return ComputeUsageRecord(**{**fields, **changes})


def test_compute_records_are_sent_loaded_and_counted():
    with serve(seeded()) as server:
        with client(server) as amie:
            [answer] = amie.send([compute("1"), compute("2", "0.1"), compute("2", "0.2")])
            assert answer.failed_records == [] and answer.message.startswith("3 record(s) accepted")
            status = amie.status()
            assert [(r.resource, r.loaded_record_count, r.failed_job_count) for r in status.resources] == [
                (RESOURCE, 2, 0)
            ]
            assert status.resources[0].total_charge == "1.7", "the second record 2 replaced the first"
            before = datetime.datetime(2026, 11, 22, 9, tzinfo=datetime.timezone.utc)
            assert amie.status(to_time=before).resources == []
            assert len(amie.status(from_time=before).resources) == 1
            assert amie.get_failed_records().failed_records == []
        loaded = server.state()["amie"]["loaded"][0]["record"]
        assert loaded["LocalReference"] == "ledger-1"
        assert loaded["Attributes"] == {"NodeCount": "1", "CpuCoreCount": "4"}
        assert loaded["ParentRecordID"] == [None], "see the head of this file"
        assert ComputeUsageRecord.from_dict(loaded).charge == "1.5"


def test_records_that_are_wrong_come_back_with_their_reason():
    with serve(seeded()) as server:
        with client(server) as amie:
            wrong = compute("1", charge="lots")
            [answer] = amie.send([wrong, compute("2")])
            [failed] = answer.failed_records
            assert failed.error == 'Charge "lots" is not a decimal number'
            assert (failed.record.local_record_id, failed.record.local_reference) == ("1", "ledger-1")
            assert failed.record.end_time == wrong.end_time
            assert len(server.state()["amie"]["loaded"]) == 1


def test_a_malformed_message_and_a_wrong_key_are_errors():
    with serve(seeded()) as server:
        with client(server, key="wrong") as amie:
            for call in (amie.status, amie.get_failed_records):
                try:
                    call()
                    raise AssertionError("a wrong key was accepted")
                except UsageResponseError as error:
                    assert str(error) == "Unauthorized"
        assert wire(server, "POST", "usage/", {"UsageType": "Compute", "Records": []}) == (
            400,
            {"error": "Records is empty"},
        )


def test_failed_records_are_read_and_cleared():
    with serve(seeded()) as server:
        with client(server) as amie:
            amie.send([compute("1", username="bob"), compute("2", local_project_id="none"), compute("3")])
            failed = amie.get_failed_records().failed_records
            assert [(f.failed_record_id, f.error, f.record.username) for f in failed] == [
                (1, "Unknown user bob on project bio42", "bob"),
                (2, f"Unknown project none on resource {RESOURCE}", "ann"),
            ]
            [resource] = amie.status().resources
            assert (resource.loaded_record_count, resource.failed_job_count) == (1, 2)
            errors = {error.error: error.message.records[0].local_record_id for error in resource.errors}
            assert errors["Unknown user bob on project bio42"] == "1"
            try:
                amie.clear_failed_records(failed)
                raise AssertionError("the client clears records now: drop the call on the wire")
            except (KeyError, IndexError):
                pass
            assert wire(server, "DELETE", "usage/failed/1,2")[0] == 200
            assert amie.get_failed_records().failed_records == []
            assert wire(server, "DELETE", "usage/failed/1")[0] == 404


def test_the_other_name_of_the_failed_list_is_on_the_wire():
    with serve(seeded(failed_list="FailedRecords")) as server:
        with client(server) as amie:
            amie.send(compute("1", username="bob"))
            assert amie.get_failed_records().failed_records == [], "the client looks under the other name"
        _, body = wire(server, "GET", "usage/failed")
        assert [row["FailedRecordID"] for row in body["FailedRecords"]] == [1]


def test_adjustments_are_sent_and_loaded():
    with serve(seeded()) as server:
        with client(server) as amie:
            refund = AdjustmentUsageRecord(
                "refund", "2.5", "2026-11-22T08:00:00Z", "bio42", "adj-1", RESOURCE, "ann", comment="node failure"
            )
            [answer] = amie.send(refund)
            assert answer.failed_records == []
        row = server.state()["amie"]["loaded"][0]
        assert row["usage_type"] == "Adjustment"
        assert AdjustmentUsageRecord.from_dict(row["record"]).comment == "node failure"


def test_storage_is_checked_on_the_wire():
    record = {
        "Username": "ann", "LocalProjectID": "bio42", "LocalRecordID": "st-1", "Resource": RESOURCE, "Charge": "12",
        "CollectionTime": "2026-11-22T00:00:00Z",
        "Attributes": {"BytesStored": "1099511627776", "CollectionInterval": "1", "MediaType": "Disk"},
    }
    with serve(seeded()) as server:
        storage = StorageUsageRecord("12", "2026-11-22T00:00:00Z", "bio42", "st-1", RESOURCE, "ann")
        try:
            storage.as_dict()
            raise AssertionError("the client prints storage records now: send one through it")
        except AttributeError:
            pass
        status, body = wire(server, "POST", "usage/", {"UsageType": "Storage", "Records": [record]})
        assert (status, body["ValidationFailedRecords"]) == (200, [])
        assert server.state()["amie"]["loaded"][0]["record"] == record


def test_loading_waits_for_its_delay_and_is_listed_page_by_page():
    with serve(seeded(processing={"after_s": 60})) as server:
        with client(server) as amie:
            amie.send([compute(str(number)) for number in range(5)])
            assert amie.status().resources == []
            server.emulator("POST", "clock", {"advance_s": 60})
            assert amie.status().resources[0].loaded_record_count == 5
        ids, page = [], 1
        while page is not None:
            path = f"usage/loaded?MinLoadedTime=2026-11-22T10:01:00Z&PageSize=2&Page={page}"
            _, body = wire(server, "GET", path)
            ids += [row["LocalRecordID"] for row in body["LoadedRecords"]]
            page = body["NextPage"]
        assert ids == ["0", "1", "2", "3", "4"]


def test_messages_that_the_client_would_split_it_does_not_send_at_all():
    with serve(seeded()) as server:
        with client(server) as amie:
            try:
                amie.send([compute(str(number), job_name="x" * 1000) for number in range(650)])
                raise AssertionError("the client splits messages now: count what arrived")
            except TypeError:
                pass
        records = [compute(str(number), job_name="x" * 1000).as_dict() for number in range(650)]
        status, body = wire(server, "POST", "usage/", {"UsageType": "Compute", "Records": records})
        assert (status, body["ValidationFailedRecords"]) == (200, [])


def test_a_message_over_the_limit_is_refused_whole():
    with serve(seeded(body_bytes_max=2000)) as server:
        with client(server) as amie:
            try:
                amie.send([compute(str(number)) for number in range(20)])
                raise AssertionError("a message over the limit was accepted")
            except Exception as error:
                assert "413" in str(error)
        assert server.state()["amie"]["loaded"] == []


AGENT = """
[cluster]
name = "emulated"
[amie]
url = "http://127.0.0.1:1/amie/api/v1/"
site = "EMULATED"
key_file = "/nowhere"
resource = "cluster.emulated.example.org"
job_names = true
refund_states = ["TIMEOUT"]
exclude = ["biology_lab"]
[amie.projects]
physics = "TG-PHY260001"
geology = "TG-GEO260002"
chemistry = "TG-PHY260001"
biology = "TG-PHY260001"
[[amie.storage]]
file = "DIRECTORY/home.csv"
format = "csv"
resource = "home.emulated.example.org"
"""

# Members of the message, and the same as the client's classes call them.
COMMON = {
    "Username": "username", "LocalProjectID": "local_project_id", "LocalRecordID": "local_record_id",
    "Resource": "resource", "Charge": "charge", "LocalReference": "local_reference",
}
COMPUTE = {
    **COMMON, "SubmitTime": "submit_time", "StartTime": "start_time", "EndTime": "end_time",
    "ParentRecordID": "parent_record_id",
}
ADJUSTMENT = {**COMMON, "AdjustmentType": "adjustment_type", "StartTime": "start_time", "Comment": "comment"}


def equal_fields(read, record, names):
    unknown = set(record) - set(names) - {"Attributes"}
    assert not unknown, f"a member that the class does not have: {unknown}"
    for member, name in names.items():
        value = getattr(read, name, None)
        # The class keeps the parent as a tuple of one (see the head of this file: it would send a list of one).
        value = value[0] if member == "ParentRecordID" else value
        assert value == record.get(member), (member, value, record)


def sent_by_the_agent(directory):
    """What the agent's own program sent: jobs of the emulated Slurm, a refund by rule, one by hand, and storage."""
    root = pathlib.Path(directory)
    (root / "config.toml").write_text(AGENT.replace("DIRECTORY", directory))
    report = root / "home.csv"
    report.write_text("account,username,bytes_stored,file_count\nphysics,alice,1500000000,3\n")
    collected = datetime.datetime(2026, 11, 10, 11, tzinfo=datetime.timezone.utc).timestamp()
    os.utime(report, (collected, collected))
    binary = os.environ["SITE_AGENT_BIN"]
    command = [binary, "--emulator", "--emulator-state", directory, "--config", str(root / "config.toml")]
    subprocess.run([*command, "--evaluate-now"], capture_output=True, check=False)
    listing = [*command, "--json", "amie", "records", "--kind", "compute"]
    listed = json.loads(subprocess.run(listing, capture_output=True, text=True, check=True).stdout)
    first = listed[0]["record"]["local_record_id"]
    adjust = ["amie", "adjust", "--type", "credit", "--charge", "0.5", "--for", first, "--comment", "n\u00f8de", "--yes"]
    said = subprocess.run([*command, *adjust], capture_output=True)
    assert said.returncode == 0, said.stderr
    subprocess.run([*command, "amie", "send"], capture_output=True, check=True)
    return json.loads((root / "central.json").read_text())["amie"]["loaded"]


def test_records_sent_by_the_agent_parse_into_the_clients_classes():
    with tempfile.TemporaryDirectory() as directory:
        loaded = sent_by_the_agent(directory)
    kinds = [row["usage_type"] for row in loaded]
    assert (kinds.count("Adjustment"), kinds.count("Storage")) == (2, 1) and kinds.count("Compute") >= 7, kinds
    parents = 0
    for row in loaded:
        record = row["record"]
        if row["usage_type"] == "Compute":
            read = ComputeUsageRecord.from_dict(record)
            equal_fields(read, record, COMPUTE)
            parents += "ParentRecordID" in record
            # The class keeps its attributes only in what it prints; one that it does not know would be missing there.
            printed = read.as_dict()["Attributes"]
            assert {name: str(value) for name, value in printed.items()} == {
                name: str(value) for name, value in record["Attributes"].items()
            }
        elif row["usage_type"] == "Adjustment":
            equal_fields(AdjustmentUsageRecord.from_dict(record), record, ADJUSTMENT)
        else:
            # StorageUsageRecord.from_dict is broken (see the head of this file): the wire form instead.
            try:
                StorageUsageRecord.from_dict(record)
                raise AssertionError("the client reads storage records now: compare their fields")
            except (AttributeError, KeyError, TypeError):
                pass
            assert record == {
                "Username": "alice", "LocalProjectID": "TG-PHY260001", "Resource": "home.emulated.example.org",
                "LocalRecordID": "emulated/storage/home/physics/alice/2026-11-10", "Charge": "1.500000",
                "LocalReference": "home/2026-11-10", "CollectionTime": "2026-11-10T11:00:00+00:00",
                "Attributes": {
                    "BytesStored": 1500000000, "FileCount": 3, "CollectionInterval": 1, "MediaType": "Disk",
                },
            }
    assert parents >= 1, "a requeued job names its first incarnation"
    comments = sorted(row["record"]["Comment"] for row in loaded if row["usage_type"] == "Adjustment")
    assert comments == ["n\u00f8de", "the job was ended by a failure of the system"]


if __name__ == "__main__":
    run(dict(globals()))
