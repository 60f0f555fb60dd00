"""Solves choices of leaves with HiGHS.

    python ets_highs.py FILE ANSWERS        needs highspy

Each line of FILE is a programme in JSON: `ancestors` (parent and cost), `leaves` (parent, cost, gain and cluster), `clusters` (their number) and `cover`, what one is worth; all integers.
For each, ANSWERS gets a line of JSON with two results: of the rows of the published code, and of fewer rows that say the same.
A result has the leaves that are kept, the bound that HiGHS proved and the seconds of processor time that it took.
"""

import json
import sys
import time

import highspy


def rows_as_published(parents, leaves, members):
    """For each ancestor: not without a leaf below, and with each of them. For each cluster: not without a member."""
    ancestors = len(parents)
    below = [[] for _ in range(ancestors)]
    for leaf, (parent, *_) in enumerate(leaves):
        while parent is not None:
            below[parent].append(ancestors + leaf)
            parent = parents[parent]
    for ancestor, held in enumerate(below):
        yield [(leaf, 1) for leaf in held] + [(ancestor, -1)]
        for leaf in held:
            yield [(ancestor, 1), (leaf, -1)]
    yield from coverage(parents, leaves, members)


def rows_in_short(parents, leaves, members):
    """Each node with its parent. An ancestor without a kept leaf only costs."""
    ancestors = len(parents)
    nodes = parents + [parent for parent, *_ in leaves]
    for node, parent in enumerate(nodes):
        if parent is not None:
            yield [(parent, 1), (node, -1)]
    yield from coverage(parents, leaves, members)


def coverage(parents, leaves, members):
    nodes = len(parents) + len(leaves)
    for cluster, of in enumerate(members):
        yield [(len(parents) + leaf, 1) for leaf in of] + [(nodes + cluster, -1)]


def solve(programme, rows_of):
    parents = [parent for parent, _ in programme["ancestors"]]
    leaves = programme["leaves"]
    members = [[] for _ in range(programme["clusters"])]
    if members:
        for leaf, (*_, cluster) in enumerate(leaves):
            members[cluster].append(leaf)
    first = len(parents)
    costs = [-cost for _, cost in programme["ancestors"]]
    costs += [gain - cost for _, cost, gain, _ in leaves]
    costs += [programme["cover"]] * len(members)
    # All rows have a left side of at least 0, but the last: some leaf is kept.
    rows = [*rows_of(parents, leaves, members), [(first + leaf, 1) for leaf in range(len(leaves))]]

    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(costs), len(rows)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = [float(cost) for cost in costs]
    model.col_lower_, model.col_upper_ = [0.0] * len(costs), [1.0] * len(costs)
    model.integrality_ = [highspy.HighsVarType.kInteger] * len(costs)
    model.row_lower_ = [0.0] * (len(rows) - 1) + [1.0]
    model.row_upper_ = [highspy.kHighsInf] * len(rows)
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row))
    matrix.start_ = starts
    matrix.index_ = [column for row in rows for column, _ in row]
    matrix.value_ = [float(value) for row in rows for _, value in row]

    solver = highspy.Highs()
    solver.silent()
    for option, value in [("threads", 1), ("mip_rel_gap", 0.0), ("mip_abs_gap", 0.0)]:
        assert solver.setOptionValue(option, value) == highspy.HighsStatus.kOk, option
    assert solver.passModel(model) == highspy.HighsStatus.kOk
    began = time.process_time()
    solver.run()
    seconds = time.process_time() - began
    status = solver.getModelStatus()
    assert status == highspy.HighsModelStatus.kOptimal, status
    values = solver.getSolution().col_value[first : first + len(leaves)]
    return {
        "kept": [value > 0.5 for value in values],
        "bound": solver.getInfo().mip_dual_bound,
        "seconds": seconds,
    }


if __name__ == "__main__":
    # HiGHS has its own use for standard output.
    with open(sys.argv[1]) as file, open(sys.argv[2], "w") as answers:
        for line in file:
            programme = json.loads(line)
            results = [solve(programme, rows) for rows in (rows_as_published, rows_in_short)]
            print(json.dumps(results), file=answers)
