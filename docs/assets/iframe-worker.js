/* Browsers start no workers for pages that are opened as files. There an iframe runs the search in a worker's place. */
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc =
        "<script>postMessage = data => frameElement.dispatchEvent(new MessageEvent('message', { data }))</script>" +
        `<script src="${url}"></script>`
      this.inside = new Promise(resolve => frame.addEventListener("load", () => resolve(frame.contentWindow)))
      frame.addEventListener("message", event => this.answer(event.data))
      document.addEventListener("DOMContentLoaded", () => document.body.append(frame))
      if (document.readyState !== "loading") document.body.append(frame)
    }

    answer(data) {
      this.dispatchEvent(new MessageEvent("message", { data }))
    }

    postMessage(data) {
      this.inside.then(inside => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
