// @ts-check
/** Comm: a message to the kernel, over the widget's comm. */

/**
 * Tell the kernel something, if it is still there: after a restart the comm is closed, its `send` throws, and nobody misses the message.
 * @param {import("./transports.js").Model} model @param {object} message
 */
export function tell(model, message) {
  try {
    model.send(message);
  } catch {
    // The view stays as it is, until its cell is run again.
  }
}
