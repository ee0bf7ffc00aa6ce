"""Holds the files in deploy/, and docker-compose.yml, to what they have to agree with. Prints what does not."""

import json
import pathlib
import re

import jsonschema_rs
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/whimbrel"
# What SIGTERM takes beyond the two settings (docs/limits.md), with 2 s to spare.
BEYOND_DRAIN = 15
# What the chart sets itself or has no use for (a data directory is one node's), and what it takes as files only.
CHARTS_OWN = set(
    "DATA_DIR FSYNC LISTEN ADMIN_LISTEN INSECURE DEV DRAIN_DELAY_SECONDS DRAIN_SECONDS "
    "TLS_CERT_FILE TLS_KEY_FILE LINK_LISTEN LINK_ADVERTISE".split()
)
SECRETS = {"JWT_SECRET", "LINK_SECRET", "WEBHOOK_SECRET", "SENTINEL_PASSWORD"}
wrong = []


def check(holds, what):
    if not holds:
        wrong.append(what)


def read(path):
    return (ROOT / path).read_text()


def load(path):
    return yaml.safe_load(path.read_text())


def merged(values, over):
    """Values as Helm puts them together."""
    if isinstance(values, dict) and isinstance(over, dict):
        return values | {key: merged(values.get(key), value) for key, value in over.items()}
    return over


def conforms(schema, value, name):
    for error in jsonschema_rs.validator_for(schema).iter_errors(value):
        wrong.append(f"{name}: {'/'.join(map(str, error.instance_path))}: {error.message}")


def yaml_is_well_formed():
    for path in [*ROOT.glob("deploy/**/*.yml"), *ROOT.glob("deploy/**/*.yaml")]:
        if "templates" not in path.parts:
            load(path)


def compose_is_to_specification():
    compose = load(ROOT / "docker-compose.yml")
    conforms(json.loads(read("tests/tools/compose-spec.json")), compose, "docker-compose.yml")
    for name, service in compose["services"].items():
        test = service.get("healthcheck", {}).get("test", [])
        check("bash" not in test, f"docker-compose.yml: {name} needs a shell for its health")
        if service.get("image") is None and "build" in service:
            grace = int(service["stop_grace_period"].removesuffix("s"))
            check(grace >= 5 + 10 + BEYOND_DRAIN, f"docker-compose.yml: {name} is killed before it has drained")


def values_are_to_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = load(CHART / "values.yaml")
    conforms(schema, defaults, "values.yaml")
    for path in (CHART / "examples").iterdir():
        conforms(schema, merged(defaults, load(path)), path.name)
    misspelt = merged(defaults, {"settings": {"PING_SECOND": 25}})
    check(not jsonschema_rs.validator_for(schema).is_valid(misspelt), "values.schema.json takes any setting")
    names = set(re.findall(r"^#WHIMBREL_(\w+)=", read(".env.example"), re.M)) - CHARTS_OWN
    files = {name.removesuffix("_FILE") for name in names if name.endswith("_FILE")}
    settings = {name for name in names - SECRETS if not name.endswith("_FILE")}
    for kind, wanted in [("settings", settings), ("files", files)]:
        given = set(schema["properties"][kind]["propertyNames"]["enum"])
        check(given == wanted, f"values.schema.json: {kind} differ from .env.example: {sorted(given ^ wanted)}")


def versions_agree():
    version = re.search(r'^version = "(.*)"', read("Cargo.toml"), re.M)[1]
    chart = load(CHART / "Chart.yaml")
    check(str(chart["appVersion"]) == version, f"Chart.yaml: appVersion is not {version}")


def anchors(page):
    """The anchors of a page's headings, as GitHub and others make them."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def alerts_lead_somewhere():
    page = "docs/troubleshooting.md"
    known, cases, text = anchors(page), read("deploy/prometheus/alerts_test.yml"), read(page)
    for group in load(ROOT / "deploy/prometheus/alerts.yml")["groups"]:
        for rule in group["rules"]:
            name = rule["alert"]
            where, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            check(where == page and anchor in known, f"{name}: {page} has no section #{anchor}")
            check(name in cases, f"{name}: alerts_test.yml has no case")
            check(name in text, f"{name}: {page} does not name it")
            check(rule["labels"]["severity"] in ("critical", "warning"), f"{name}: no severity")


def panels_do_not_overlap():
    taken, ids = {}, set()
    for panel in json.loads(read("deploy/grafana/whimbrel.json"))["panels"]:
        check(panel["id"] not in ids, f"dashboard: two panels have the id {panel['id']}")
        ids.add(panel["id"])
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                check(other == panel["title"], f"dashboard: {panel['title']} lies over {other}")


def unit_waits_for_the_drain():
    unit = read("deploy/systemd/whimbrel.service")
    wait = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1])
    check(wait >= 5 + 10 + BEYOND_DRAIN, "whimbrel.service: killed before it has drained")


yaml_is_well_formed()
compose_is_to_specification()
values_are_to_schema()
versions_agree()
alerts_lead_somewhere()
panels_do_not_overlap()
unit_waits_for_the_drain()
if wrong:
    raise SystemExit("\n".join(dict.fromkeys(wrong)))
