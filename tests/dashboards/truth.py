"""What the rows say of counters and gauges, bin by bin, worked out without a database: as InfluxQL and SQL take bins, and as
PromQL takes windows."""

import statistics

import grafana

SECOND = 10**9


def close(one, other, apart=0.1):
    """The same but for what InfluxQL takes for a bin's time: its begin, not that of the last sample."""
    return abs(one - other) <= apart * max(abs(one), abs(other)) + 1e-9


class Truth:
    """What the rows say of a VM (and a device, or a resource) in each bin."""

    def __init__(self, rows):
        self.rows = sorted(rows, key=lambda row: row[3])

    def samples(self, uuid, table, field, tags):
        """Times and values of a field."""
        return [(time, fields[field]) for name, found, fields, time in self.rows
                if name == table and found.get("uuid") == uuid and field in fields and tags.items() <= found.items()]

    def all_values(self, table, field, **tags):
        return [fields[field] for name, found, fields, _ in self.rows
                if name == table and field in fields and tags.items() <= found.items()]


class Bins(Truth):
    """As InfluxQL and SQL take them, by their begin. The first and the last bin, which are not whole, are left out."""

    def bins(self, *which):
        width, found = grafana.INTERVAL * SECOND, {}
        for time, value in self.samples(*which):
            found.setdefault(time // width * width, []).append((time, value))
        return {begin: found[begin] for begin in sorted(found)[1:-1]}

    def means(self, uuid, table, field, **tags):
        found = self.bins(uuid, table, field, tags)
        return {begin: statistics.mean(value for _, value in points) for begin, points in found.items()}

    def rates(self, uuid, table, field, **tags):
        """Begin of the bin -> rates that are right: InfluxQL divides by the bins' distance, SQL by the samples'."""
        lasts = [(begin, *points[-1]) for begin, points in self.bins(uuid, table, field, tags).items()]
        return {
            begin: ((high - low) / grafana.INTERVAL, (high - low) / ((later - earlier) / SECOND))
            for (_, earlier, low), (begin, later, high) in zip(lasts, lasts[1:])
        }


class Windows(Truth):
    """As PromQL takes them: what lies in the window before each step, named by the step before. A window that begins before
    the first sample or ends after the last is left out."""

    def __init__(self, rows, seconds, version):
        super().__init__(rows)
        self.width = seconds * SECOND
        # Prometheus 3 leaves out what lies on the begin of a window.
        self.closed = version < (3, 0)
        # Before 2.52 a counter's zero within the window came before the half distance (prometheus#13725).
        self.zero_first = version < (2, 52)

    def windows(self, *which):
        samples, step = self.samples(*which), grafana.INTERVAL * SECOND
        first, last = (samples[0][0], samples[-1][0]) if samples else (0, 0)
        for end in range((first + self.width) // step * step + step, last + 1, step):
            start = end - self.width
            found = [(time, value) for time, value in samples
                     if time <= end and (time >= start if self.closed else time > start)]
            if found:
                yield end - step, start, end, found

    def means(self, uuid, table, field, **tags):
        windows = self.windows(uuid, table, field, tags)
        return {begin: statistics.mean(value for _, value in found) for begin, _, _, found in windows}

    def rates(self, uuid, table, field, **tags):
        windows = self.windows(uuid, table, field, tags)
        return {begin: (self.rate(*window),) for begin, *window in windows if len(window[2]) > 1}

    def rate(self, start, end, found):
        """After extrapolatedRate in Prometheus' promql/functions.go: a window that begins or ends close to a sample counts to
        its edge, else by half a distance between samples; no counter is taken below 0."""
        (earlier, low), (later, high) = found[0], found[-1]
        moved, sampled = high - low, (later - earlier) / SECOND
        distance = sampled / (len(found) - 1)
        before, after = (earlier - start) / SECOND, (end - later) / SECOND
        to_zero = sampled * low / moved if moved > 0 and low >= 0 else before
        if self.zero_first:
            before = min(before, to_zero)
        if before >= 1.1 * distance:
            before = distance / 2
        before = min(before, to_zero)
        if after >= 1.1 * distance:
            after = distance / 2
        return moved * (sampled + before + after) / sampled / ((end - start) / SECOND)

    def means_of_rates(self, table, fields, span, tags):
        """uuid -> the rates of these counters over the whole range, of all runs of a VM and all its devices."""
        end = span[1]
        start = end - round((span[1] - span[0]) / SECOND) * SECOND
        series = {(found["uuid"], found["VMID"], found.get("device")) for name, found, _, _ in self.rows if name == table}
        rates = {}
        for uuid, run, device in series:
            mine = tags | {"VMID": run} | ({"device": device} if device else {})
            for field in fields:
                found = [one for one in self.samples(uuid, table, field, mine) if one[0] >= start]
                if len(found) > 1:
                    rates[uuid] = rates.get(uuid, 0) + self.rate(start, end, found)
        return rates
