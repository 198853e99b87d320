// Mouse, touch and pen over a mask: one draws, two fingers or a held space key move the picture, the wheel zooms.

const WHEEL = 0.0015; // of the zoom, for a px of the wheel
const ERASER = 32; // of the buttons of a pen

/** `tool`: begin, move, end and cancel of what is drawn, hover where nothing is pressed; `isPanning`: whether space is held. */
export function listenToPointers(stage, view, { tool, isPanning, panned }) {
  const pressed = new Map(); // pointers, by their number
  let role = null; // of all that are pressed: "draw", "pan" or "pinch"
  let hasPen = false; // then a hand on the screen does not draw

  const begin = (event) => {
    if (event.pointerType === "pen") hasPen = true;
    if (event.pointerType === "mouse" && event.button > 1) return;
    event.preventDefault();
    stage.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    pressed.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (pressed.size === 2) {
      if (role === "draw") tool.cancel();
      role = "pinch";
    } else if (pressed.size === 1) {
      const isHand = hasPen && event.pointerType === "touch";
      role = isPanning() || event.button === 1 || isHand ? "pan" : "draw";
      if (role === "draw") tool.begin(view.placeOf(event), event, (event.buttons & ERASER) !== 0);
    }
    if (role === "pan") panned();
  };

  const move = (event) => {
    const last = pressed.get(event.pointerId);
    if (last === undefined) {
      if (pressed.size === 0) tool.hover(view.placeOf(event));
      return;
    }
    const now = { x: event.clientX, y: event.clientY };
    if (role === "pan") view.pan(now.x - last.x, now.y - last.y);
    if (role === "pinch") pinch(event.pointerId, last, now);
    if (role === "draw") {
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const each of passed.length > 0 ? passed : [event]) tool.move(view.placeOf(each));
    }
    pressed.set(event.pointerId, now);
  };

  const pinch = (own, last, now) => {
    const other = [...pressed].find(([id]) => id !== own)?.[1];
    if (other === undefined) return;
    const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    const middle = { clientX: (last.x + other.x) / 2, clientY: (last.y + other.y) / 2 };
    view.zoom(distance(now) / distance(last), middle);
    view.pan((now.x - last.x) / 2, (now.y - last.y) / 2);
  };

  const end = (event) => {
    if (!pressed.delete(event.pointerId)) return;
    if (role === "draw") (event.type === "pointerup" ? tool.end : tool.cancel)(view.placeOf(event));
    if (pressed.size === 0) role = null;
    else if (role === "draw") role = "pan";
  };

  stage.addEventListener("pointerdown", begin);
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  stage.addEventListener("pointerleave", () => pressed.size === 0 && tool.hover(null));
  stage.addEventListener("dblclick", (event) => tool.twice(view.placeOf(event)));
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1;
    view.zoom(Math.exp(-event.deltaY * lines * WHEEL * (event.ctrlKey ? 5 : 1)), event);
  }, { passive: false });
}
