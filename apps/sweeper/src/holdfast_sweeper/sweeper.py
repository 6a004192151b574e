"""The sweeper: events come in by one door, wait in a conversation of their item, and each is a turn that looks at it.

Read `hear` and `run` first. What a turn does follows from the item as GitHub has it then (`plan.py`), so that lost,
repeated and overtaken events end in the same comment; what was done before stands in the conversation (`memory.py`).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import holdfast
from holdfast_sweeper import rules
from holdfast_sweeper.commands import CHANGING, Command
from holdfast_sweeper.facts import Facts, Item, is_repo
from holdfast_sweeper.github import AbsentError, GitHub, RefusedError
from holdfast_sweeper.hatch import hatch, is_eligible
from holdfast_sweeper.labels import Status, diff, proof_labels, wanted_of
from holdfast_sweeper.memory import DRAFTED, KEPT, NOT_ARMED, Kept, drafted, kept_of
from holdfast_sweeper.model import Model, ModelError
from holdfast_sweeper.permissions import Asker, may_answer, refusal
from holdfast_sweeper.plan import HOUR_S, Ignored, Work, exemption, is_stale, needs_review, plan, too_often
from holdfast_sweeper.prompt import EXPLAIN_SYSTEM, SYSTEM, prompt_of
from holdfast_sweeper.proof import Verdict, judge
from holdfast_sweeper.reading import Seen, read_item, who
from holdfast_sweeper.render import Shown, comment_of, report_of
from holdfast_sweeper.review import Draft, Review, read_draft, review_of
from holdfast_sweeper.settings import Settings
from holdfast_sweeper.text import cut, plain
from holdfast_sweeper.writing import Audit, OneComment, Pace, Writer

LANE = "hook"
OPERATOR = "operator"
RECENT = 500
log = logging.getLogger("holdfast_sweeper")


@dataclass(slots=True)
class Case:
    """One turn's item: what is known, what is remembered, and where it is shown."""

    turn: holdfast.Turn
    work: Work
    input_id: str
    kept: Kept
    lines: list[Mapping[str, Any]]
    seen: Seen
    writer: Writer
    comment: OneComment
    proof: Verdict | None

    @property
    def facts(self) -> Facts:
        return self.seen.facts

    @property
    def is_stale(self) -> bool:
        return is_stale(self.kept.memory, self.facts)

    def review(self) -> Review | None:
        """The review of the item as it is now; None: there is none."""
        return review_from(self.kept, self.facts, self.proof) if self.kept.is_of(self.facts) else None


class Sweeper:
    """One process's.

    Args:
        model: None: plain rules. known: secrets of this process, which stand in no prompt.
    """

    def __init__(
        self, hf: holdfast.Holdfast, github: GitHub, settings: Settings, *, audit: Audit, model: Model | None = None,
        known: Sequence[str] = (), pace: Pace | None = None, now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.hf, self.github, self.settings = hf, github, settings
        self.audit, self.model, self.known, self.now = audit, model, tuple(known), now
        self.pace = pace or Pace(settings.limits.writes_per_minute)

    # ── the door ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def hear(self, event: str, payload: Mapping[str, Any], delivery: str) -> Ignored | list[str]:
        """Take a webhook whose signature was verified. When ids of inputs come back they are stored for good.

        Raises: GitHubError: our own account cannot be read. holdfast.ResourceError: nothing was stored; tell it again.
        """
        login, our_id = await self.github.me()
        works = plan(event, payload, self.settings, login=login, our_id=our_id)
        if isinstance(works, Ignored):
            return works
        return [await self.want(work, f"{delivery}:{work.item.number}") for work in works]

    async def want(self, work: Work, key: str | None) -> str:
        """Put something into the queue of its item; the same key again is the same. Returns the input's id.

        What runs on the item and is in vain now is asked to stop, by the rules for inputs: only its owner settles it.

        Raises: holdfast.ResourceError: nothing was stored. holdfast.HoldfastError: the queue is full.
        """
        session = f"{work.item.session}:answers" if work.is_answer else work.item.session
        payload = {"content": work.told, "sweeper": work.to_json()}
        admission = await self.hf.accept(
            holdfast.InboundEvent(session, payload, source="sweeper", account=work.item.repo, key=key, lane=LANE)
        )
        if isinstance(admission, holdfast.LaneFull):
            raise holdfast.ResourceError(f"{work.item.text}: {admission.waiting} events wait already")
        if isinstance(admission, holdfast.Accepted) and work.ends_running:
            await self._end_running(work, admission.input_id)
        return admission.input_id

    async def _end_running(self, work: Work, newest: str) -> None:
        word = work.command.word if work.command is not None else ""
        by = "a newer push" if work.why == "push" else f"{work.by or OPERATOR} ({word})"
        for view in await self.hf.inputs(session=work.item.session, limit=50):
            is_older = not view.settled and view.id != newest
            if is_older and _is_ended_by(Work.from_json(view.payload["sweeper"]), work, view.state):
                await self.hf.cancel(view.id, by=by)

    async def look(self, item: Item) -> Review | None:
        """The review of an item as it is now, as it was made; None: there is none of this state. Only reads."""
        entries = await self.hf.session(item.session).entries()
        kept = kept_of(
            {"customType": getattr(one, "custom_type", ""), "data": getattr(one, "data", None)} for one in entries
        )
        facts = (await read_item(self.github, item, not_ours=self.settings.status_context)).facts
        if not kept.is_of(facts):
            return None
        return review_from(kept, facts, judge(facts.raw) if facts.kind == "pull" else None)

    async def sweep(self, repo: str) -> int:
        """Put every open item of a repository into its queue. Returns how many. What is unchanged is left alone there.

        Raises: GitHubError.
        """
        if not is_repo(repo):
            raise ValueError(f"{repo[:100]!r} is no repository; write owner/repo")
        count = 0
        for one in await self.github.pages(f"/repos/{repo}/issues?state=open", pages_max=50):
            number = one.get("number") if isinstance(one, dict) else None
            if isinstance(number, int) and ("pull_request" in one or self.settings.issues):
                key = f"sweep:{number}:{one.get('updated_at')}:{int(self.now() // 3600)}"
                await self.want(Work(Item(repo, number), "schedule"), key)
                count += 1
        return count

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, turn: holdfast.Turn, view: Any) -> None:
        """One input, as `hf.work` hands it over: look at the item, and do what has to be done about it."""
        work = Work.from_json(view.payload["sweeper"])
        lines: list[Mapping[str, Any]] = [line.value() for line in await turn.branch() if line.kind == "entry"]
        needless = await self._needless(turn, work, view.id, kept_of(lines))
        if needless:
            turn.outcome = holdfast.Outcome("skipped", detail=needless)
            return
        await turn.append(holdfast.user(work.told))
        if work.is_answer:
            said = await self._answer(turn, work)
        else:
            case = await self._case(turn, work, view.id, lines)
            said = await self._see_to(case)
            await case.comment.settle()
            await self._remember(case)
        await turn.append(holdfast.assistant(said, model=self.model.name if self.model else rules.NAME))

    async def _needless(self, turn: holdfast.Turn, work: Work, input_id: str, kept: Kept) -> str:
        """Why nothing is even read for an input; empty: it is. A burst of events costs one look, and somebody who goes
        on with commands beyond the limit, which they were told of, costs nothing.
        """
        if work.command is not None:
            count = len(await self._commands_before(work, input_id))
            return "too many commands within the hour" if count > self.settings.limits.commands_per_person else ""
        if work.why == "checks" and kept.armed == NOT_ARMED:
            return "nothing waits for checks"
        if work.why in ("checks", "dispatch"):
            return ""
        waiting = await self.hf.inputs(session=turn.session, state="queued", limit=50)
        works = [Work.from_json(one.payload["sweeper"]) for one in waiting]
        is_seen_later = any(one.command is None and one.why != "checks" for one in works)
        return "a later event that waits already looks at it as well" if is_seen_later else ""

    async def _commands_before(self, work: Work, input_id: str) -> list[float]:
        """When the same person gave commands before this one, within the last hour. The operator has no limit."""
        if not work.by:
            return []
        recent = await self.hf.inputs(limit=RECENT)  # newest first: those before this one stand behind it
        own = next((at for at, view in enumerate(recent) if view.id == input_id), 0)
        before = [(view.accepted_at_ms / 1000, view.payload.get("sweeper") or {}) for view in recent[own + 1 :]]
        return [
            at
            for at, one in before
            if one.get("by_id") == work.by_id and one.get("command") and at > self.now() - HOUR_S
        ]

    async def _case(self, turn: holdfast.Turn, work: Work, input_id: str, lines: list[Mapping[str, Any]]) -> Case:
        kept = kept_of(lines).without_running(input_id)
        turn.begins("tool", f"read {work.item.text}")
        seen = await read_item(self.github, work.item, not_ours=self.settings.status_context)
        writer = Writer(self.github, self.settings, self.audit, self.pace, work.item, turn, work.by or OPERATOR)
        comment = OneComment(writer, seen.ours, is_unsure=turn.attempt > 1)
        facts = seen.facts
        proof = judge(facts.raw) if facts.kind == "pull" else None
        return Case(turn, work, input_id, kept, lines, seen, writer, comment, proof)

    async def _see_to(self, case: Case) -> str:
        """What is done about an item. Returns it in words."""
        await self._proof(case)
        if case.work.why == "checks" and case.kept.armed[2] == case.facts.head:
            by, by_id, _ = case.kept.armed
            case.work = replace(case.work, by=by, by_id=by_id, command=Command("automerge"))
        command = case.work.command
        if command is not None or case.kept.armed[2] != case.facts.head:
            case.kept = replace(case.kept, armed=NOT_ARMED)  # a newer wish counts, and a push ends the old one
        if command is not None:
            refused = await self._refused(case, command)
            if refused:
                await self._react(case, "confused")
                await self.say(case, command, f"not done: {refused}")
                return f"refused: {refused}"
            await self._react(case, "eyes")
            if command.word in CHANGING:
                from holdfast_sweeper.actions import change  # the part that most installations never use

                return await change(self, case, command)
            if command.word in ("explain", "stop", "proof", "hatch"):
                return await self._small(case, command)
        by_hand = case.work.why == "dispatch"
        why = exemption(case.facts, self.settings, command or (Command("review") if by_hand else None))
        if why:
            if command is not None:
                await self.say(case, command, f"not done: {why}")
            elif case.comment.id and case.facts.state == "open":
                await self._show(case)
            return f"not reviewed: {why}"
        if not needs_review(case.kept.memory, case.facts, command):
            return await self._nothing_new(case, command)
        if command is None and not by_hand and case.kept.stopped == case.facts.digest:
            return "somebody has said stop"
        wait_s = await self._limit(case)
        if wait_s:
            said = f"put off: too many reviews within the hour; again in {wait_s / 60:.0f} min, or at the next event"
            if command is not None:
                await self.say(case, command, said)
            return said
        return await self._review(case, command)

    async def _nothing_new(self, case: Case, command: Command | None) -> str:
        review = case.review()
        if review is not None:
            await self._label(case, wanted_of(review))
        if command is not None:
            await self.say(case, command, "this very state is reviewed already; `re-review` reviews it anew")
        else:
            await self._show(case)
        return "nothing has changed"

    async def _review(self, case: Case, command: Command | None) -> str:
        facts = case.facts
        if command is not None:
            case.kept = case.kept.with_said(command.word, case.work.by, "is being done", case.input_id, is_over=False)
        if self.model is not None:
            shown = proof_labels(facts, case.proof, is_stale=case.is_stale)
            await self._label(case, shown, status="reviewing", instead=("status: ", "proof: ", "triage: "))
        await self._show(case, progress="asking" if self.model else "reading")
        draft, model, note = await self._draft(case, command)
        at = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="seconds")
        review = review_of(facts, draft, case.proof, model=model, at=at, is_stale=case.is_stale, note=note)
        labels = wanted_of(review)
        case.kept = replace(
            case.kept, digest=facts.digest, head=facts.head, draft=draft.model_dump(mode="json"), model=model, at=at,
            note=note, report=report_of(review, labels), stopped="", reviews=(*case.kept.reviews, self.now()),
        )  # fmt: skip
        if command is not None:
            case.kept = case.kept.with_said(command.word, case.work.by, "done", case.input_id)
        await self._label(case, labels)
        await self._show(case)
        self.audit.note(facts.item, "review", "done", head=facts.head, model=model, rating=review.rating.overall)
        return f"reviewed {facts.head[:12] or facts.item.text}: {review.rating.overall}, {review.priority}"

    async def _draft(self, case: Case, command: Command | None) -> tuple[Draft, str, str]:
        """The draft, who wrote it, and a note. What was answered before a restart is not asked for again."""
        if self.model is None:
            return rules.draft_of(case.facts), rules.NAME, ""
        forced = command is not None and command.word in ("re-review", "re-run")
        key = f"{case.facts.digest}:{case.input_id if forced else ''}"
        known = drafted(case.lines, key)
        if known is not None:
            return Draft.model_validate(known["draft"]), known["model"], known["note"]
        draft, note = await self._asked(case)
        model = rules.NAME if note else self.model.name
        told = {"key": key, "draft": draft.model_dump(mode="json"), "model": model, "note": note}
        await case.turn.append(holdfast.custom(DRAFTED, told), durable=True)
        return draft, model, note

    async def _asked(self, case: Case) -> tuple[Draft, str]:
        """What the model says, asked once more if it cannot be read; then the rules, with a note why."""
        fault = ""
        for _ in range(2):
            more = f"Your last answer could not be used: {cut(fault, 500)}\n" if fault else ""
            prompt = prompt_of(case.facts, secrets.token_hex(8), known=self.known, more=more)
            try:
                answer = await self.ask(case, SYSTEM, prompt)
            except ModelError as exc:
                fault = str(exc)
                break
            read = read_draft(answer)
            if isinstance(read, Draft):
                return read, ""
            fault = read
        log.warning("%s: the model's answer was not used: %s", case.work.item.text, plain(fault, 300))
        note = f"Written by rules: the model's answer could not be used ({cut(fault, 200)})."
        return rules.draft_of(case.facts), note

    async def ask(self, case: Case, system: str, prompt: str) -> str:
        """Ask the model, in a prompt window. Raises: ModelError; what `turn.prompt_window` raises."""
        assert self.model is not None
        case.turn.begins("model", self.model.name)
        async with case.turn.prompt_window():
            return await self.model.ask(system, prompt)

    # ── parts of it ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _proof(self, case: Case) -> None:
        """The gate: remembered for which commit, and as the commit's status."""
        facts, proof = case.facts, case.proof
        if proof is None or facts.state != "open" or not facts.head:
            return
        again = case.work.command is not None and case.work.command.word == "proof"
        if proof.status == "passed" and (not case.is_stale or again):
            case.kept = replace(case.kept, proof_head=facts.head, proof_body=facts.body_digest)
        stale = " (shown for an earlier commit)" if case.is_stale else ""
        state = "success" if proof.passes else "failure"
        said = f"{facts.head} {state} {proof.status}{stale}"
        if case.kept.status == said:
            return
        description = cut(f"{proof.status}: {proof.why}{stale}", 140)
        body = {"state": state, "context": self.settings.status_context, "description": description}
        try:
            done = await case.writer.do(
                "status", "POST", f"/repos/{facts.item.repo}/statuses/{facts.head}", body, why="the gate"
            )
        except RefusedError as exc:  # a commit that is gone since; the push that took it away comes as an event
            log.warning("%s: %s", facts.item.text, exc)
            return
        if done is not None:
            case.kept = replace(case.kept, status=said)

    async def _refused(self, case: Case, command: Command) -> str:
        """Why a command is not carried out; empty: it is."""
        asker = await self.asker(case.work, case.facts)
        programs = frozenset(one.lower() for one in self.settings.programs)
        why = refusal(command.word, asker, programs=programs)
        if why or asker.login == OPERATOR:
            return why
        times = await self._commands_before(case.work, case.input_id)
        wait_s = too_often(times, self.now(), self.settings.limits.commands_per_person)
        return f"too many commands within the hour; again in {wait_s / 60:.0f} min" if wait_s else ""

    async def asker(self, work: Work, facts: Facts) -> Asker:
        """Who has caused something; nobody: whoever operates this program."""
        if not work.by:
            return Asker(OPERATOR, "admin")
        return await who(
            self.github, work.item.repo, work.by, user_id=work.by_id, facts=facts, is_program=work.is_program
        )

    async def _limit(self, case: Case) -> float:
        """Seconds until another review is allowed: of this item, and of all."""
        limits = self.settings.limits
        own = too_often(case.kept.reviews, self.now(), limits.reviews_per_item)
        recent = await self.hf.inputs(state="answered", limit=RECENT)
        made = [(view.settled_at_ms or 0) / 1000 for view in recent if (view.answer or "").startswith("reviewed ")]
        return max(own, too_often(made, self.now(), limits.reviews))

    async def _small(self, case: Case, command: Command) -> str:
        """Commands that make no review."""
        if command.word == "stop":
            case.kept = replace(case.kept, stopped=case.facts.digest)
            await self._label(case, {}, status="stopped", instead=("status: ",))
            said = "stopped; the next push, or `review`, begins again"
        elif command.word == "hatch":
            facts = case.facts
            ready = is_eligible(facts.kind, facts.state, is_draft=facts.is_draft)
            case.kept = replace(case.kept, has_hatched=case.kept.has_hatched or ready)
            said = (
                f"hatched {hatch(facts.item).told}" if ready else "it hatches when it is no draft, or, an issue, closed"
            )
        elif command.word == "proof":
            said = f"{case.proof.status}: {plain(case.proof.why)}" if case.proof else "an issue has to prove nothing"
            review = case.review()
            if review is not None:
                await self._label(case, wanted_of(review))
                case.kept = replace(case.kept, report=report_of(review, wanted_of(review)))
        else:
            said = await self._explain(case, command)
        await self.say(case, command, said)
        return f"{command.word}: {said}"

    async def _explain(self, case: Case, command: Command) -> str:
        review = case.review()
        if review is None:
            return "there is no review of this very state; `review` makes one"
        number = next((int(word) for word in command.rest.split() if word.isdecimal() and len(word) < 4), 0)
        findings = review.draft.findings
        if number > len(findings):
            return f"there are {len(findings)} findings"
        if number:
            one = findings[number - 1]
            about = f"{one.priority}, {one.confidence:.0%} sure: {one.title}. {one.detail}"
        else:
            rating = review.rating
            about = f"proof {rating.proof}, patch {rating.patch}; {review.draft.risk_why or review.draft.summary}"
        if self.model is None:
            return plain(about)
        prompt = prompt_of(
            case.facts, secrets.token_hex(8), known=self.known,
            more="Explain what is under [besides] to its author in at most 150 words of plain text.",
            besides=cut(about, 2_000), schema=None,
        )  # fmt: skip
        try:
            return plain(await self.ask(case, EXPLAIN_SYSTEM, prompt), 1_500)
        except ModelError as exc:
            return f"{plain(about)} (no model: {plain(str(exc), 200)})"

    async def _answer(self, turn: holdfast.Turn, work: Work) -> str:
        """Somebody answers what a running turn waits for. Only questions of this very item count."""
        assert work.command is not None
        approval_id = work.command.rest.split()[0] if work.command.rest else ""
        asked = [one for one in await self.hf.approvals(session=work.item.session) if one.id == approval_id]
        writer = Writer(self.github, self.settings, self.audit, self.pace, work.item, turn, work.by)
        if not asked:
            await self._react_to(writer, work, "confused")
            return f"no question {cut(approval_id, 40)!r} of this item"
        cause = await self.hf.input(asked[0].input_id) if asked[0].input_id else None
        by = str((cause.payload.get("sweeper") or {}).get("by") or "") if cause is not None else ""
        asker = await who(
            self.github, work.item.repo, work.by, user_id=0, facts=_nobody(work.item), is_program=work.is_program
        )
        why = refusal(work.command.word, asker) or may_answer(by, asker, self_approval=self.settings.self_approval)
        if why:
            self.audit.note(work.item, f"answer {asked[0].id}", f"refused: {why}", by=work.by)
            await self._react_to(writer, work, "confused")
            return f"refused: {why}"
        yes = work.command.word == "approve"
        try:
            await self.hf.answer_approval(asked[0].id, yes=yes, by=f"{work.by} on GitHub")
        except holdfast.InputError as exc:
            await self._react_to(writer, work, "confused")
            return f"too late: {exc}"
        self.audit.note(work.item, f"answer {asked[0].id}", "approved" if yes else "denied", by=work.by)
        await self._react_to(writer, work, "+1" if yes else "-1")
        return f"{asked[0].id}: {'approved' if yes else 'denied'} by {work.by}"

    # ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def say(self, case: Case, command: Command, said: str, *, is_over: bool = True) -> None:
        """Show what becomes of a command. `said`: ours, or made plain."""
        case.kept = case.kept.with_said(command.word, case.work.by, said, case.input_id, is_over=is_over)
        await self._show(case)

    async def say_meanwhile(self, case: Case, command: Command, said: str) -> None:
        """The same of a command that goes on, remembered at once: a stop of this process must not leave it there."""
        await self.say(case, command, said, is_over=False)
        await self._remember(case)

    async def _show(self, case: Case, progress: str = "") -> None:
        case.kept = replace(case.kept, comment=case.comment.id)
        await case.comment.show(comment_of(self.shown(case, progress)))

    def shown(self, case: Case, progress: str = "") -> Shown:
        kept, facts, review = case.kept, case.facts, case.review()
        url = self.settings.public_url.rstrip("/")
        picture = f"{url}/hatch/{facts.item.repo}/{facts.item.number}.svg" if url else ""
        return Shown(
            facts.item, review, progress, facts.head, "" if review else "there is none yet",
            tuple(one.note for one in kept.said), picture if kept.has_hatched else None,
            wanted_of(review) if review else None, earlier="" if review else kept.report, earlier_head=kept.head,
        )  # fmt: skip

    async def _remember(self, case: Case) -> None:
        case.kept = replace(case.kept, comment=case.comment.id)
        await case.turn.append(holdfast.custom(KEPT, case.kept.to_json()), durable=True)

    async def _label(
        self, case: Case, wanted: Mapping[str, str], *, status: Status | None = None, instead: tuple[str, ...] = ("",)
    ) -> None:
        """Bring our labels into step. instead: how those begin that are replaced; others stay as they are."""
        names = {one for one in case.facts.labels if not one.startswith(instead)} | set(wanted)
        if status is not None:
            names = {one for one in names if not one.startswith("status: ")} | {f"status: {status}"}
        change = diff(case.facts.labels, names)
        base = f"/repos/{case.work.item.repo}/issues/{case.work.item.number}/labels"
        done = True
        if change.add:
            why = "; ".join(f"{name}: {wanted.get(name, 'where it stands')}" for name in change.add)
            done = (
                await case.writer.do("labels", "POST", base, {"labels": list(change.add)}, why=cut(why, 500))
                is not None
            )
        for name in change.remove:
            with contextlib.suppress(AbsentError):  # somebody was faster
                await case.writer.do("labels", "DELETE", f"{base}/{quote(name, safe='')}", why="it holds no more")
        if done and self.settings.allows("labels"):
            left = (set(case.facts.labels) | set(change.add)) - set(change.remove)
            case.seen = replace(case.seen, facts=replace(case.facts, labels=tuple(sorted(left))))

    async def _react(self, case: Case, sign: str) -> None:
        await self._react_to(case.writer, case.work, sign)

    async def _react_to(self, writer: Writer, work: Work, sign: str) -> None:
        if work.comment:
            where = f"/repos/{work.item.repo}/issues/comments/{work.comment}/reactions"
            try:
                await writer.do("react", "POST", where, {"content": sign}, why="heard")
            except RefusedError as exc:
                log.warning("%s: no reaction: %s", work.item.text, exc)


def review_from(kept: Kept, facts: Facts, proof: Verdict | None) -> Review:
    """The remembered review, of an item that is as it was then."""
    draft, stale = Draft.model_validate(kept.draft), is_stale(kept.memory, facts)
    return review_of(facts, draft, proof, model=kept.model, at=kept.at, is_stale=stale, note=kept.note)


def _is_ended_by(running: Work, newer: Work, state: str) -> bool:
    """Whether what runs or waits is in vain once `newer` is there: a push ends what is about the commit before it."""
    if newer.why == "push":
        return state == "running" or running.command is None
    return state == "running" or (running.command is not None and running.command.word in CHANGING)


def _nobody(item: Item) -> Facts:
    return Facts(item, "issue", "open", "", "", "", "", (), "", "")
