"""Waldur's own Python client against the emulated central server.

Needs `waldur-api-client` (8.1.3 when this was written). Every endpoint the agent or its operators use is called
through the client and every answer is parsed by its models; then the models' values are compared.

Where the client cannot read what the real server sends, the test says so and looks at the wire instead:
`fired_datetime: null` of a policy that never fired, the absent `warnings` of a policy without any, and the null
`billing_period_start` and `billing_period_end` of a preview without a resource.
"""

import datetime
import json
import uuid

from waldur_api_client.api.marketplace_component_usages import (
    marketplace_component_usages_count as usages_count,
    marketplace_component_usages_list as usages_list,
    marketplace_component_usages_retrieve as usages_retrieve,
    marketplace_component_usages_set_usage as usages_set,
    marketplace_component_usages_set_user_usage as usages_set_user,
    marketplace_component_usages_set_user_usages as usages_set_users,
)
from waldur_api_client.api.marketplace_component_user_usages import (
    marketplace_component_user_usages_list as user_usages_list,
)
from waldur_api_client.api.marketplace_provider_resources import (
    marketplace_provider_resources_count as resources_count,
    marketplace_provider_resources_list as resources_list,
    marketplace_provider_resources_retrieve as resources_retrieve,
    marketplace_provider_resources_set_backend_metadata as resources_set_metadata,
)
from waldur_api_client.api.marketplace_slurm_periodic_usage_policies import (
    marketplace_slurm_periodic_usage_policies_actions_count as policies_actions_count,
    marketplace_slurm_periodic_usage_policies_actions_retrieve as policies_actions,
    marketplace_slurm_periodic_usage_policies_command_history_list as policies_history,
    marketplace_slurm_periodic_usage_policies_count as policies_count,
    marketplace_slurm_periodic_usage_policies_create as policies_create,
    marketplace_slurm_periodic_usage_policies_destroy as policies_destroy,
    marketplace_slurm_periodic_usage_policies_dry_run as policies_dry_run,
    marketplace_slurm_periodic_usage_policies_evaluate as policies_evaluate,
    marketplace_slurm_periodic_usage_policies_evaluation_logs_list as policies_logs,
    marketplace_slurm_periodic_usage_policies_force_period_reset as policies_reset,
    marketplace_slurm_periodic_usage_policies_list as policies_list,
    marketplace_slurm_periodic_usage_policies_partial_update as policies_patch,
    marketplace_slurm_periodic_usage_policies_preview_impact as policies_preview,
    marketplace_slurm_periodic_usage_policies_report_command_result as policies_report,
    marketplace_slurm_periodic_usage_policies_retrieve as policies_retrieve,
    marketplace_slurm_periodic_usage_policies_update as policies_update,
)
from waldur_api_client.client import AuthenticatedClient
from waldur_api_client.errors import UnexpectedStatus
from waldur_api_client.models.component_usage_create_request import ComponentUsageCreateRequest
from waldur_api_client.models.component_usage_item_request import ComponentUsageItemRequest
from waldur_api_client.models.component_user_usage_bulk_create_request import ComponentUserUsageBulkCreateRequest
from waldur_api_client.models.component_user_usage_create_request import ComponentUserUsageCreateRequest
from waldur_api_client.models.current_qos_status_enum import CurrentQosStatusEnum
from waldur_api_client.models.execution_mode_enum import ExecutionModeEnum
from waldur_api_client.models.limit_type_enum import LimitTypeEnum
from waldur_api_client.models.nested_offering_component_limit_request import NestedOfferingComponentLimitRequest
from waldur_api_client.models.patched_slurm_periodic_usage_policy_request import (
    PatchedSlurmPeriodicUsagePolicyRequest,
)
from waldur_api_client.models.policy_period_enum import PolicyPeriodEnum
from waldur_api_client.models.qos_strategy_enum import QosStrategyEnum
from waldur_api_client.models.resource_backend_metadata_request import ResourceBackendMetadataRequest
from waldur_api_client.models.resource_field_enum import ResourceFieldEnum
from waldur_api_client.models.resource_state import ResourceState
from waldur_api_client.models.slurm_command_result_mode_enum import SlurmCommandResultModeEnum
from waldur_api_client.models.slurm_command_result_request import SlurmCommandResultRequest
from waldur_api_client.models.slurm_periodic_usage_policy_request import SlurmPeriodicUsagePolicyRequest
from waldur_api_client.models.slurm_policy_date_projection_status_enum import SlurmPolicyDateProjectionStatusEnum
from waldur_api_client.models.slurm_policy_evaluate_request_request import SlurmPolicyEvaluateRequestRequest
from waldur_api_client.models.slurm_policy_preview_request_request import SlurmPolicyPreviewRequestRequest

from emulated import run, serve

OFFERING = uuid.UUID("0ffe0000-0000-4000-8000-000000000001")
BIO42 = uuid.UUID("b1042000-0000-4000-8000-000000000001")
CHEM7 = uuid.UUID("c4e70000-0000-4000-8000-000000000001")
POLICY = uuid.UUID("90110000-0000-4000-8000-000000000001")
POLICIES = "/api/marketplace-slurm-periodic-usage-policies/"

SEED = {
    "clock": {"fixed": "2026-11-22T10:00:00Z"},
    # What the client's models call mandatory is sent; see the head of this file.
    "settings": {"schema_conform": True, "evaluate_on_usage": False},
    "users": [
        {"username": "agent", "full_name": "Site Agent", "token": "staff-token", "role": "staff"},
        {"username": "olga", "token": "owner-token", "role": "owner"},
        {"username": "eve", "token": "user-token"},
    ],
    "offerings": [
        {
            "uuid": str(OFFERING),
            "name": "cluster",
            "components": [
                {"type": "cpu", "name": "CPU", "measured_unit": "hours"},
                {"type": "mem", "name": "RAM", "measured_unit": "GB-hours"},
            ],
        }
    ],
    "policies": [{"uuid": str(POLICY), "created_by": "agent", "carryover_enabled": False}],
    "resources": [
        {"uuid": str(BIO42), "name": "bio42", "limits": {"cpu": 1000}},
        {"uuid": str(CHEM7), "name": "chem7", "limits": {"cpu": 300, "mem": 512.5}},
    ],
}


def client(server, token="staff-token"):
    return AuthenticatedClient(base_url=server.url, token=token, prefix="Token")


def seeded(**changes):
    return {**json.loads(json.dumps(SEED)), **changes}


def refused(call, **arguments):
    """Status and body of a call that the client rejects."""
    try:
        call.sync_detailed(**arguments)
    except UnexpectedStatus as error:
        return error.status_code, json.loads(error.content)
    raise AssertionError("the call was accepted")


def request_body(server, **changes):
    fields = {
        "scope": f"{server.url}/api/marketplace-provider-offerings/{OFFERING.hex}/",
        "actions": "request_slurm_resource_pausing,notify_organization_owners",
        "apply_to_all": True,
        "component_limits_set": [NestedOfferingComponentLimitRequest(type_="cpu", limit=1000)],
    }
    return SlurmPeriodicUsagePolicyRequest(**{**fields, **changes})


def set_cpu(server, amount, **changes):
    item = ComponentUsageItemRequest(type_="cpu", amount=amount, description="from the ledger")
    body = ComponentUsageCreateRequest(**{"resource": BIO42, "usages": [item], **changes})
    return usages_set.sync_detailed(client=client(server), body=body)


def test_a_policy_is_created_read_changed_replaced_and_deleted():
    with serve(seeded(policies=[])) as server:
        staff = client(server)
        created = policies_create.sync(
            client=staff,
            body=request_body(
                server, period=PolicyPeriodEnum.VALUE_3, grace_ratio=0.3, limit_type=LimitTypeEnum.MAXTRESMINS
            ),
        )
        assert created.period is PolicyPeriodEnum.VALUE_3 and created.period_name == "3 month"
        assert created.limit_type is LimitTypeEnum.MAXTRESMINS
        assert created.qos_strategy is QosStrategyEnum.THRESHOLD
        assert (created.grace_ratio, created.carryover_factor) == (0.3, 50)
        assert created.tres_billing_enabled and created.raw_usage_reset and created.carryover_enabled
        assert created.scope_uuid == OFFERING and created.scope_name == "cluster"
        assert created.created_by_full_name == "Site Agent"
        assert created.created == datetime.datetime(2026, 11, 22, 10, tzinfo=datetime.timezone.utc)
        assert [(limit.type_, limit.limit) for limit in created.component_limits_set] == [("cpu", 1000)]
        assert policies_retrieve.sync(created.uuid, client=staff) == created
        assert policies_list.sync(client=staff) == [created]
        assert policies_list.sync(client=staff, scope_uuid=uuid.uuid4()) == []
        assert policies_count.sync(client=staff) == 1

        changed = policies_patch.sync(
            created.uuid, client=staff, body=PatchedSlurmPeriodicUsagePolicyRequest(carryover_factor=15)
        )
        assert changed.carryover_factor == 15 and changed.grace_ratio == 0.3
        replaced = policies_update.sync(
            created.uuid,
            client=staff,
            body=request_body(server, component_limits_set=[], qos_strategy=QosStrategyEnum.PROGRESSIVE),
        )
        assert replaced.qos_strategy is QosStrategyEnum.PROGRESSIVE and replaced.component_limits_set == []
        assert policies_destroy.sync_detailed(created.uuid, client=staff).status_code == 204
        assert policies_list.sync(client=staff) == []


def test_a_wrong_policy_is_refused_with_reasons():
    with serve(seeded()) as server:
        staff = client(server)
        message = "A SLURM Periodic Usage Policy already exists for this offering."
        assert refused(policies_create, client=staff, body=request_body(server)) == (
            400,
            {"non_field_errors": [message]},
        )
        status, body = refused(policies_create, client=staff, body=request_body(server, actions="explode"))
        assert (status, list(body)) == (400, ["actions"])
        status, _ = refused(policies_retrieve, client=staff, uuid=uuid.uuid4())
        assert status == 404
        status, body = refused(policies_list, client=client(server, "wrong"))
        assert (status, body) == (401, {"detail": "Invalid token."})
        assert policies_list.sync(client=client(server, "user-token")) == []
        status, _ = refused(
            policies_dry_run, client=client(server, "owner-token"), uuid=POLICY, body=SlurmPolicyEvaluateRequestRequest()
        )
        assert status == 403


def test_available_actions_are_listed_and_counted():
    with serve(seeded()) as server:
        actions = policies_actions.sync(client=client(server))
        assert "request_slurm_resource_pausing" in actions
        assert policies_actions_count.sync(client=client(server)) == len(actions)


def test_what_the_client_cannot_read_is_what_the_real_server_sends():
    with serve(seeded(settings={"evaluate_on_usage": False})) as server:
        token = {"Authorization": "Token staff-token"}
        _, _, text = server.call("GET", f"{POLICIES}{POLICY.hex}/", headers=token)
        wire = json.loads(text)
        assert wire["fired_datetime"] is None and "warnings" not in wire
        try:
            policies_retrieve.sync(POLICY, client=client(server))
            raise AssertionError("the client reads null as a time now: drop schema_conform from the seed")
        except (TypeError, AttributeError):
            pass
        _, _, text = server.call("POST", f"{POLICIES}preview_impact/", {}, headers=token)
        wire = json.loads(text)
        assert wire["billing_period_start"] is None and wire["billing_period_end"] is None
        assert wire["thresholds"]["blocked_threshold"] == 1200.0


def test_lists_are_read_page_by_page_and_reduced_to_fields():
    extra = [{"name": f"p{number:03}", "limits": {"cpu": 1}} for number in range(230)]
    with serve(seeded(resources=SEED["resources"] + extra)) as server:
        staff = client(server)
        everything = resources_list.sync_all(client=staff, offering_uuid=[OFFERING], state=[ResourceState.OK])
        assert len({resource.uuid for resource in everything}) == len(everything) == 232
        assert resources_count.sync(client=staff) == 232
        page = resources_list.sync_detailed(client=staff, page=3, page_size=100)
        assert len(page.parsed) == 32 and page.headers["x-result-count"] == "232"
        few = resources_list.sync_detailed(
            client=staff, backend_id="chem7", field=[ResourceFieldEnum.UUID, ResourceFieldEnum.LIMITS]
        )
        assert [set(row) for row in json.loads(few.content)] == [{"uuid", "limits"}]
        assert few.parsed[0].limits.additional_properties == {"cpu": 300, "mem": 512.5}
        whole = resources_retrieve.sync(CHEM7, client=staff)
        assert (whole.backend_id, whole.state, whole.paused) == ("chem7", ResourceState.OK, False)
        assert whole.offering_uuid == OFFERING and whole.project_name == "project"


def test_backend_metadata_is_kept():
    with serve(seeded()) as server:
        body = ResourceBackendMetadataRequest.from_dict({"backend_metadata": {"state": "applied", "qos": "slowdown"}})
        answer = resources_set_metadata.sync(BIO42, client=client(server), body=body)
        assert answer.status
        kept = resources_retrieve.sync(BIO42, client=client(server)).backend_metadata
        assert kept.state == "applied" and kept["qos"] == "slowdown"


def test_usage_is_absolute_and_read_back():
    with serve(seeded()) as server:
        staff = client(server)
        assert set_cpu(server, "12.50").status_code == 201
        assert set_cpu(server, "640.75").status_code == 201
        assert set_cpu(server, "300", date=datetime.datetime(2026, 10, 5, tzinfo=datetime.timezone.utc)).status_code == 201
        rows = usages_list.sync(client=staff, resource_uuid=BIO42)
        assert [(row.billing_period, row.usage) for row in rows] == [
            (datetime.date(2026, 11, 1), 640),
            (datetime.date(2026, 10, 1), 300),
        ]
        assert (rows[0].type_, rows[0].measured_unit, rows[0].resource_name) == ("cpu", "hours", "bio42")
        assert usages_retrieve.sync(rows[0].uuid, client=staff) == rows[0]
        assert usages_count.sync(client=staff, date_after=datetime.date(2026, 11, 1)) == 1
        usages = resources_retrieve.sync(BIO42, client=staff).current_usages
        assert usages.additional_properties == {"cpu": 640.75}
        item = ComponentUsageItemRequest(type_="disk", amount="1")
        body = ComponentUsageCreateRequest(resource=BIO42, usages=[item])
        assert refused(usages_set, client=staff, body=body) == (
            400,
            {"non_field_errors": ["These components are invalid: disk."]},
        )


def test_usage_of_users_is_absolute_too():
    with serve(seeded()) as server:
        staff = client(server)
        set_cpu(server, "10")
        parent = usages_list.sync(client=staff, resource_uuid=BIO42)[0].uuid
        for amount in ("3.25", "4.25"):
            users = [
                ComponentUserUsageCreateRequest(username="ann", usage=amount),
                ComponentUserUsageCreateRequest(username="bob", usage="2"),
            ]
            body = ComponentUserUsageBulkCreateRequest(usages=users)
            assert usages_set_users.sync_detailed(parent, client=staff, body=body).status_code == 201
        body = ComponentUserUsageCreateRequest(username="cy", usage="1")
        assert usages_set_user.sync_detailed(parent, client=staff, body=body).status_code == 201
        rows = user_usages_list.sync(client=staff)
        assert {row.username: row.usage for row in rows} == {"ann": 4, "bob": 2, "cy": 1}
        assert {row.component_type for row in rows} == {"cpu"}
        kept = json.loads(server.state_path.read_text())["user_usages"]
        assert [row["usage"] for row in kept] == ["4.25", "2.00", "1.00"], "what was answered is on disk"


def test_commands_are_issued_for_changes_and_results_are_recorded():
    with serve(seeded()) as server:
        staff = client(server)
        assert policies_history.sync(POLICY, client=staff) == []
        policies_patch.sync(POLICY, client=staff, body=PatchedSlurmPeriodicUsagePolicyRequest(grace_ratio=0.5))
        history = policies_history.sync(POLICY, client=staff)
        kinds = [(command.command_type, command.parameters["account"]) for command in history]
        assert sorted(kinds) == [
            ("fairshare", "bio42"), ("fairshare", "chem7"), ("limits", "bio42"), ("limits", "chem7"),
        ]
        # 1000 h: 333; 60000 min and 1000 / 64 x 60 = 937.5 -> 937 billing minutes, each x 1.5 and cut.
        ours = {c.command_type: c for c in history if c.parameters["account"] == "bio42"}
        assert ours["fairshare"].parameters["fairshare"] == 333
        assert ours["limits"].parameters["limits"] == {"cpu": 90000, "billing": 1405}
        assert ours["fairshare"].shell_command == "sacctmgr --immediate modify account bio42 set fairshare=333"
        assert all(command.success for command in history)

        # A new quarter: each account once more, with a reset.
        server.emulator("POST", "clock", {"fixed": "2027-01-01T00:00:00Z"})
        kinds = [command.command_type for command in policies_history.sync(POLICY, client=staff)]
        assert sorted(kinds) == ["fairshare"] * 4 + ["limits"] * 4 + ["reset_usage"] * 2

        body = SlurmCommandResultRequest(
            resource_uuid=BIO42,
            success=False,
            error_message="no such account",
            mode=SlurmCommandResultModeEnum.EMULATOR,
            commands_executed=["sacctmgr -i modify account where account=bio42 set fairshare=333"],
        )
        answer = policies_report.sync_detailed(POLICY, client=staff, body=body)
        assert answer.status_code == 200
        for command in policies_history.sync(POLICY, client=staff):
            ours = command.parameters["account"] == "bio42"
            assert command.success is not ours
            assert command.execution_mode is (ExecutionModeEnum.EMULATOR if ours else ExecutionModeEnum.PRODUCTION)
        [result] = server.state()["results"]
        assert result["commands_executed"] == body.commands_executed and result["success"] is False


def test_a_resource_is_dry_run_evaluated_blocked_and_released():
    with serve(seeded()) as server:
        staff = client(server)
        only = SlurmPolicyEvaluateRequestRequest(resource_uuid=BIO42)
        everyone = SlurmPolicyEvaluateRequestRequest()
        set_cpu(server, "1200")
        dry = policies_dry_run.sync(POLICY, client=staff, body=everyone)
        assert (dry.billing_period, dry.grace_limit_percentage) == ("2026-Q4", 120.0)
        triggers = {row.resource_name: (row.usage_percentage, row.would_trigger) for row in dry.resources}
        assert triggers == {"bio42": (120.0, ["pause", "downscale", "notify"]), "chem7": (0.0, [])}
        assert policies_logs.sync(POLICY, client=staff) == []

        [row] = policies_evaluate.sync(POLICY, client=staff, body=only).resources
        assert row.actions_taken == ["pause", "downscale", "notify"]
        assert row.previous_state.additional_properties == {"paused": False, "downscaled": False}
        assert row.new_state.additional_properties == {"paused": True, "downscaled": True}
        resource = resources_retrieve.sync(BIO42, client=staff)
        assert resource.paused and resource.downscaled
        policy = policies_retrieve.sync(POLICY, client=staff)
        assert policy.has_fired and policy.affected_resources_count == 1
        [log] = policies_logs.sync(POLICY, client=staff)
        assert (log.resource_uuid, log.billing_period, log.usage_percentage) == (BIO42, "2026-Q4", 120.0)
        assert log.stomp_message_sent and log.site_agent_confirmed is None
        report = SlurmCommandResultRequest(resource_uuid=BIO42, success=True)
        policies_report.sync_detailed(POLICY, client=staff, body=report)
        [log] = policies_logs.sync(POLICY, client=staff)
        assert log.site_agent_confirmed is True and log.site_agent_response["mode"] == "production"

        assert policies_reset.sync(POLICY, client=staff, body=everyone).resources == [], "over its allocation"
        set_cpu(server, "10")
        [row] = policies_reset.sync(POLICY, client=staff, body=everyone).resources
        assert (row.resource_uuid, row.actions_taken) == (BIO42, [])
        assert row.new_state.additional_properties == {"paused": False, "downscaled": False}
        qos = [c.parameters["qos"] for c in policies_history.sync(POLICY, client=staff) if c.command_type == "qos"]
        assert qos == ["normal", "blocked"], "newest first"


def test_a_preview_shows_thresholds_carryover_dates_and_commands():
    with serve(seeded()) as server:
        staff = client(server)
        preview = policies_preview.sync(
            client=staff,
            body=SlurmPolicyPreviewRequestRequest(
                allocation=1000.0, grace_ratio=0.3, previous_usage=900.0, carryover_factor=15,
                current_usage=900.0, daily_usage_rate=37.5,
            ),
        )
        assert (preview.carryover.unused, preview.carryover.carryover_cap) == (100.0, 150.0)
        assert preview.effective_allocation == 1100.0
        thresholds = preview.thresholds
        assert (thresholds.notification_threshold, thresholds.slowdown_threshold) == (880.0, 1100.0)
        assert thresholds.blocked_threshold == 1430.0
        assert preview.current_qos_status is CurrentQosStatusEnum.NOTIFICATION
        dates = preview.date_projections
        assert dates.notification.status is SlurmPolicyDateProjectionStatusEnum.EXCEEDED
        assert (dates.slowdown.days, dates.slowdown.date) == (5, datetime.date(2026, 11, 27))
        assert dates.blocked.status is SlurmPolicyDateProjectionStatusEnum.PROJECTED

        set_cpu(server, "530")
        preview = policies_preview.sync(
            client=staff, body=SlurmPolicyPreviewRequestRequest(resource_uuid=BIO42)
        )
        assert (preview.base_allocation, preview.current_usage, preview.daily_usage_rate) == (1000.0, 530.0, 10.0)
        assert [command.type_ for command in preview.preview_commands] == ["fairshare", "limits"]
        assert preview.billing_period_end == datetime.date(2026, 11, 30)
        never = policies_preview.sync(client=staff, body=SlurmPolicyPreviewRequestRequest())
        assert never.carryover is None and never.date_projections.blocked.days is None


def test_an_offering_nobody_listens_to_warns():
    offering = {**SEED["offerings"][0], "site_agent_queue": False}
    with serve(seeded(offerings=[offering])) as server:
        policy = policies_retrieve.sync(POLICY, client=client(server))
        assert policy.warnings and "queue" in policy.warnings[0]


def test_a_throttled_request_names_its_wait():
    with serve(seeded()) as server:
        fault = {"kind": {"too_many_requests": {"retry_after": {"seconds": 7}}}}
        server.emulator("POST", "faults", fault)
        status, body = refused(policies_list, client=client(server))
        assert status == 429 and "7 seconds" in body["detail"]
        assert len(policies_list.sync(client=client(server))) == 1


if __name__ == "__main__":
    run(dict(globals()))
