"""Which lines a query reads: conditions, said once and written in each language.

Times are apart: InfluxQL and SQL have them among the conditions (`RANGE`, `LATELY`), PromQL behind the selector.
"""

from dataclasses import dataclass


@dataclass
class Where:
    """A condition in each language; in PromQL it is matchers of labels."""

    influxql: str
    sql: str
    promql: str = ""

    def __and__(self, other):
        return Where(
            f"{self.influxql} AND {other.influxql}",
            f"{self.sql} AND {other.sql}",
            ",".join(filter(None, (self.promql, other.promql))),
        )


def variable(tag, name):
    """The tag has (one of) the value(s) of the dashboard's variable. PromQL reads a text in backticks as it stands.
    Grafana's own escaping is for double quotes, but leaves those in a value as they are: titles have them rather than backticks."""
    return Where(
        f'"{tag}" =~ /^${{{name}:regex}}$/', f"{tag} IN (${{{name}:sqlstring}})", f"{tag}=~`${{{name}:regex}}`"
    )


def is_(tag, value):
    return Where(f"\"{tag}\" = '{value}'", f"{tag} = '{value}'", f'{tag}="{value}"')


def filtered(tag, values):
    """Of VMs: the tag that the variable `tag` names has one of the values of the variable `values`. A VM without that tag
    passes when all are chosen: what then stands for all of them fits every uuid. No value of a tag is a VM's uuid else.
    In PromQL it fits a label that is not there."""
    return Where(
        f'("${{{tag}}}" =~ /^${{{values}:regex}}$/ OR "uuid" =~ /^${{{values}:regex}}$/)',
        f'("${{{tag}}}" IN (${{{values}:sqlstring}}) OR uuid IN (${{{values}:sqlstring}}))',
        f"${{{tag}}}=~`${{{values}:regex}}`",
    )


RANGE = Where("$timeFilter", "$__timeFilter(time)")
# The end of the range, not the present: the dashboards look into the past as well.
LATELY = Where(
    "time > ${__to}ms - $stale AND time <= ${__to}ms",
    "time > $__timeTo() - INTERVAL '$stale' AND time <= $__timeTo()",
)
HOST = variable("host", "host")
# The VMs of the chosen hosts whose owner, or another tag, is chosen.
VMS = HOST & filtered("tag", "tagged")
VM_OF_HOST = HOST & variable("uuid", "vm")
NIC = VM_OF_HOST & is_("devtype", "nic") & variable("device", "nic")
DISK = VM_OF_HOST & is_("devtype", "disk") & variable("device", "disk")
# A core is a series of its own in Telegraf's inputs.cpu (percpu = true, the default).
EACH_CPU = Where("\"cpu\" != 'cpu-total'", "cpu <> 'cpu-total'", 'cpu!="cpu-total"') & HOST
