"use strict";
/* What a server would answer, answered from the documents that report.html holds. */
{
  const { known } = braid;

  braid.answers.support = (docs, { set: name, sort = "gained", find = "", offset = 0, limit = 200 }) => {
    const doc = docs[name || Object.keys(docs)[0]];
    if (!doc) return { checkpoints: [], prompts: [], total: 0, offset: 0 };
    const wanted = find.toLowerCase();
    const kept = doc.prompts.filter(
      (one) => !wanted || one.id.toLowerCase().includes(wanted) || String(one.family).toLowerCase().includes(wanted),
    );
    const first = doc.checkpoints.findIndex((one) => one.step === doc.before),
      last = doc.checkpoints.findIndex((one) => one.step === doc.after);
    const rate = (one) => one.rate?.[last] ?? -1,
      rise = (one) => (one.rate?.[last] ?? 0) - (one.rate?.[first] ?? 0);
    const keys = {
      rate,
      "-rate": (one) => -rate(one),
      change: rise,
      "-change": (one) => -rise(one),
      gained: (one) => [Number(one.change !== "expanded"), -rise(one)],
      lost: (one) => [Number(one.change !== "attrited"), rise(one)],
    };
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    if (sort === "family" || sort === "id")
      kept.sort((a, b) => (sort === "family" ? order(a.family, b.family) : 0) || order(a.id, b.id));
    else if (keys[sort])
      kept.sort((a, b) =>
        [keys[sort](a)].flat().reduce((found, one, at) => found || order(one, [keys[sort](b)].flat()[at]), 0),
      );
    return { ...doc, prompts: kept.slice(+offset, +offset + +limit), total: kept.length, offset: +offset };
  };

  braid.answers.prompt = (docs, { id, set: name = "probe", step }) => {
    const found = docs[name]?.[id];
    const steps = Object.keys(found ?? {});
    const at = step !== undefined && found?.[step] ? step : steps.at(-1);
    if (!found || (step !== undefined && !found[step]))
      throw new braid.Failed(
        "The prompt's responses",
        "this file does not hold them: of many prompts and probes it keeps some",
        "`braid ui DIR` shows all",
      );
    return found[at];
  };

  braid.answers.trajectories = (docs, query) => {
    const number = (value) => (value === undefined || value === null || value === "" ? null : Number(value));
    const rows = Object.values(docs).filter(
      (one) =>
        (number(query.step) === null || one.step === number(query.step)) &&
        ["strand", "producer", "stage"].every((key) => !query[key] || one[key] === query[key]) &&
        (!query.verdict ||
          query.verdict === "any" ||
          { passed: true, failed: false }[query.verdict] === one.passed ||
          (query.verdict === "unknown" && one.passed === null)) &&
        (number(query.least) === null || (known(one.reward) && one.reward >= number(query.least))) &&
        (number(query.most) === null || (known(one.reward) && one.reward <= number(query.most))) &&
        (number(query.shortest) === null || one.length >= number(query.shortest)) &&
        (number(query.longest) === null || one.length <= number(query.longest)) &&
        (!query.text || one.text.toLowerCase().includes(query.text.toLowerCase())),
    );
    const [, minus, key] = /^(-?)(.*)$/.exec(query.sort ?? "written");
    if (key === "written") rows.sort((a, b) => b.step - a.step || a.row - b.row);
    else rows.sort((a, b) => !known(a[key]) - !known(b[key]) || (minus ? b[key] - a[key] : a[key] - b[key]));
    const offset = number(query.offset) ?? 0;
    const steps = Object.values(docs).map((one) => one.step);
    const range = steps.length ? [Math.min(...steps), Math.max(...steps)] : null;
    const further = offset + Number(query.limit) < rows.length ? { offset: offset + Number(query.limit) } : null;
    return {
      rows: rows
        .slice(offset, offset + Number(query.limit))
        .map((one) => ({ ...one, preview: one.text.slice(0, 200) })),
      total: number(query.step) === null ? null : rows.length,
      next: further,
      looked: range,
      steps: range,
    };
  };

  braid.answers.trajectory = (docs, { step, row }) => {
    const found = docs[`${step}:${row}`];
    if (!found)
      throw new braid.Failed(
        "The trajectory",
        "this file does not hold it: it keeps some of each stage's first and last step",
        "`braid ui DIR` shows all",
      );
    return found;
  };
}
